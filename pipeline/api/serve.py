"""Main of the process `api`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextvars import copy_context

import structlog
import uvicorn
from fastapi import FastAPI
from pymongo.errors import PyMongoError

from config.settings import Settings
from pipeline.api.application import create_app, create_operations_app
from pipeline.api.connections import Connections, bounded_protocol
from pipeline.api.services import Services
from protocol.errors import Unavailable

log = structlog.get_logger(__name__)

#: Seconds a SIGTERM waits for requests that are under way; uploads are sent again.
GRACE_SECONDS = 10
#: Seconds an idle connection is kept: longer than a worker's pause between two pings.
KEEP_ALIVE_SECONDS = 30
#: Seconds between two tries to reach broker and database at start.
RETRY_SECONDS = 1.0


def run(settings: Settings) -> None:
    """Serve both ports until SIGTERM or SIGINT. Raises BadSetting, BadKeystore before anything listens."""
    services = Services.open(settings)
    # Before anything else: while the broker or the database is away, this is where to read so.
    operations = server(settings, create_operations_app(services), settings.operations_host, settings.operations_port)
    threading.Thread(target=copy_context().run, args=(operations.run,), name="operations", daemon=True).start()
    services.monitor.start()
    _prepare(services)
    public = server(settings, create_app(services), settings.api_host, settings.api_port)
    # Once it has ended, uvicorn sends itself the signal again; that must not look like a crash.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))
    log.info("API listens.", action="api_start", host=settings.api_host, port=settings.api_port)
    public.run()


def server(settings: Settings, app: FastAPI, host: str, port: int) -> uvicorn.Server:
    """A server of `app` with every limit of connections and of time. Raises BadSetting."""
    connections = Connections.of(settings)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            # Its base class is the one of pure Python, the only one that is installed: a faster one would not matter.
            http=bounded_protocol(connections),
            ws="none",
            forwarded_allow_ips=settings.trusted_proxies,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


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
