"""Log lines: a sentence, a stable `action`, and ids of the present task or deal; secrets are cut out.

log.info("Deal ingested.", action="deal_ingested", deal=deal_id, tasks=10)
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import structlog

from config.redaction import redacted
from config.settings import Settings

#: Libraries that write a line per request.
_LIBRARIES = ("httpx", "httpcore", "amqp", "urllib3", "pymongo", "docker")
#: Writes a warning of each request that is no HTTP or asks for another protocol: strangers could fill disks with lines.
_SERVER = "uvicorn"
#: Celery's loggers that write "received" and "succeeded" for every task: Flower shows that, and it costs time.
_TWO_LINES_A_TASK = ("celery.worker.strategy", "celery.app.trace")


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace passwords inside URLs, which reach errors of other libraries; last processor before rendering."""
    for key, value in event.items():
        event[key] = redacted(value)
    return event


#: Processors of every line, whoever wrote it.
_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def _formatter(renderer: Any) -> logging.Formatter:
    """The formatter of all log lines, other libraries' too: secrets are redacted before `renderer` writes them."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, renderer],
    )


def also_to(path: Path) -> None:
    """Write every line to this file too, as JSON. Whoever renames the file has a new one begun by the next line."""
    handler = WatchedFileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(_formatter(structlog.processors.JSONRenderer()))
    root = logging.getLogger()
    root.handlers[:] = [*(other for other in root.handlers if not isinstance(other, WatchedFileHandler)), handler]


def configure(settings: Settings, *, process: str) -> None:
    """Set up structlog and the standard library's loggers alike. `process`: name in every line."""
    text = settings.log_format == "text"
    renderer: Any = structlog.dev.ConsoleRenderer() if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(renderer))
    root = logging.getLogger()
    root.handlers[:] = [handler, *(other for other in root.handlers if isinstance(other, WatchedFileHandler))]
    root.setLevel(settings.log_level.upper())
    for noisy in (*_LIBRARIES, *_TWO_LINES_A_TASK):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger(_SERVER).setLevel(logging.ERROR)
    structlog.contextvars.bind_contextvars(process=process)
