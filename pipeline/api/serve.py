"""Main of the process `api`."""

from __future__ import annotations

import signal
import sys

import structlog
import uvicorn

from config.settings import Settings
from pipeline.api.application import create_app
from pipeline.api.services import Services

log = structlog.get_logger(__name__)

#: Seconds a SIGTERM waits for requests that are under way; uploads are sent again.
GRACE_SECONDS = 10
#: Seconds an idle connection is kept: longer than a worker's pause between two pings.
KEEP_ALIVE_SECONDS = 30


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises BadSetting, BadKeystore before anything listens."""
    services = Services.open(settings)
    services.broker.prepare()
    services.store.ensure_indexes()
    services.challenges.ensure_indexes()
    for left_over in services.uploads.glob("*.zip"):
        left_over.unlink(missing_ok=True)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(services),
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    # Once it has ended, uvicorn sends itself the signal again; that must not look like a crash.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))
    log.info("API listens.", action="api_start", host=settings.api_host, port=settings.api_port)
    server.run()
