"""A server of one application, with every limit of connections and of time."""

from __future__ import annotations

import asyncio
from types import FrameType

import uvicorn
from fastapi import FastAPI

from config.http_server.connections import Connections, bounded_protocol
from config.settings import Settings

#: Seconds a SIGTERM waits for requests that are under way; uploads are sent again.
GRACE_SECONDS = 10
#: Seconds an idle connection is kept: longer than a worker's pause between two pings.
KEEP_ALIVE_SECONDS = 30
#: Seconds between two clock readings of an idle server, which date its answers; uvicorn's own are ten times as many.
TICK_SECONDS = 1.0


class CalmServer(uvicorn.Server):
    """uvicorn's server, which wakes up once a second while nobody asks anything, and ends at once at a signal."""

    _pause: asyncio.Future[None] | None = None

    async def main_loop(self) -> None:
        """Do uvicorn's regular work (the `Date` header, limits) once a second until a signal comes. uvicorn calls it
        once the server listens.
        """
        loop = asyncio.get_running_loop()
        # Its every tenth tick does what there is to do.
        while not await self.on_tick(0):
            self._pause = loop.create_future()
            loop.call_later(TICK_SECONDS, _end, self._pause)
            await self._pause

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Have `main_loop` end at once instead of at its next tick. uvicorn calls it at a signal."""
        super().handle_exit(sig, frame)
        if self._pause is not None:
            self._pause.get_loop().call_soon_threadsafe(_end, self._pause)


def _end(pause: asyncio.Future[None]) -> None:
    """Wake `main_loop` from its pause; nothing if the pause is over. Called by the event loop."""
    if not pause.done():
        pause.set_result(None)


def http_server(settings: Settings, app: FastAPI, host: str, port: int) -> uvicorn.Server:
    """A server of `app` with every limit of connections and of time. Raises BadSetting."""
    connections = Connections.of(settings)
    return CalmServer(
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
