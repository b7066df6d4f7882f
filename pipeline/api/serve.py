"""Main of the process `api`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextvars import copy_context

import structlog
from pymongo.errors import PyMongoError

from config.http_server.server import http_server
from config.settings import Settings
from pipeline.api.application import create_app, create_operations_app
from pipeline.api.services import Services
from protocol.errors import Unavailable

log = structlog.get_logger(__name__)

#: Seconds between two tries to reach broker and database at start.
RETRY_SECONDS = 1.0


def run(settings: Settings) -> None:
    """Serve both ports until SIGTERM or SIGINT. Raises BadSetting, BadKeystore before anything listens."""
    services = Services.open(settings)
    # Before anything else: while the broker or the database is away, this is where to read so.
    operations = http_server(
        settings, create_operations_app(services), settings.operations_host, settings.operations_port
    )
    threading.Thread(target=copy_context().run, args=(operations.run,), name="operations", daemon=True).start()
    services.monitor.start()
    _prepare(services)
    public = http_server(settings, create_app(services), settings.api_host, settings.api_port)
    # Once it has ended, uvicorn sends itself the signal again; that must not look like a crash.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))
    log.info("API listens.", action="api_start", host=settings.api_host, port=settings.api_port)
    public.run()


def _prepare(services: Services) -> None:
    """Virtual hosts and indexes, waiting for broker and database; what it waits for is logged once."""
    logged = ""
    while True:
        try:
            services.broker.prepare()
            services.store.ensure_indexes()
            services.challenges.ensure_indexes()
        except (Unavailable, PyMongoError) as error:
            why = str(error).partition(" (")[0]
            if why != logged:
                log.warning("Cannot serve yet.", action="api_waits", why=why)
            logged = why
            time.sleep(RETRY_SECONDS)
        else:
            return
