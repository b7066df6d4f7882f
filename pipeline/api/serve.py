"""Main of the process `api`, and of others that serve the same port beside it (SLUICE_API_PROCESSES).

    api              health, metrics, the operator's API ── SLUICE_OPERATIONS_PORT
    api, api-2, …    workers and requesters ─────────────── SLUICE_API_PORT: the kernel deals out the connections

Each counts its own rates and connections. One that dies takes its connections along; their clients ask again.
"""

from __future__ import annotations

import signal
import socket
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
from pipeline.broker.monitor import admit_monitor
from protocol.errors import Unavailable

log = structlog.get_logger(__name__)

#: Seconds between two tries to reach broker and database at start.
RETRY_SECONDS = 1.0
#: Connections that may wait to be accepted, as many as uvicorn has them: all machines come back at once.
BACKLOG = 2048


def run(settings: Settings) -> None:
    """Serve both ports until SIGTERM or SIGINT. Raises BadSetting, BadKeystore before anything listens."""
    services = Services.open(settings)
    # Before anything else: while the broker or the database is away, this is where to read so.
    operations = http_server(
        settings, create_operations_app(services), settings.operations_host, settings.operations_port
    )
    threading.Thread(target=copy_context().run, args=(operations.run,), name="operations", daemon=True).start()
    services.monitor.start()
    _serve(settings, services)


def run_another(settings: Settings) -> None:
    """Serve SLUICE_API_PORT alone until SIGTERM or SIGINT. Raises BadSetting, BadKeystore before it listens."""
    _serve(settings, Services.open(settings))


def _serve(settings: Settings, services: Services) -> None:
    """Serve SLUICE_API_PORT once broker and database answer."""
    _prepare(services)
    public = http_server(settings, create_app(services), settings.api_host, settings.api_port)
    # Once it has ended, uvicorn sends itself the signal again; that must not look like a crash.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))
    log.info("API listens.", action="api_start", host=settings.api_host, port=settings.api_port)
    public.run(sockets=[listening(settings)] if settings.api_processes > 1 else None)


def listening(settings: Settings) -> socket.socket:
    """A socket at SLUICE_API_PORT, where each of several processes has one."""
    host, family = settings.api_host, socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    return socket.create_server((host, settings.api_port), family=family, backlog=BACKLOG, reuse_port=True)


def _prepare(services: Services) -> None:
    """Make virtual hosts and indexes, waiting for broker and database; what is waited for is logged once."""
    logged = ""
    while True:
        try:
            services.broker.prepare()
            admit_monitor(services.broker, services.settings)
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
