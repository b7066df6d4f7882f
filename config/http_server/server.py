"""A server of one application, with every limit of connections and of time."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from config.http_server.connections import Connections, bounded_protocol
from config.settings import Settings

#: Seconds a SIGTERM waits for requests that are under way; uploads are sent again.
GRACE_SECONDS = 10
#: Seconds an idle connection is kept: longer than a worker's pause between two pings.
KEEP_ALIVE_SECONDS = 30


def http_server(settings: Settings, app: FastAPI, host: str, port: int) -> uvicorn.Server:
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
