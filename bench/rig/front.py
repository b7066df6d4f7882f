"""A load balancer for the API of several scheduler hosts: a connection goes to the first host that takes it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from bench.chaos.relay import CHUNK_BYTES, TURN_SECONDS
from config.connections.http_client import watched_socket

#: Seconds for a host to take a connection: a host that is cut off never does.
CONNECT_SECONDS = 1.0
_HOST = "127.0.0.1"


@contextmanager
def open_front(port: int, hosts: Sequence[int]) -> Iterator[str]:
    """The URL at which `port` leads to the APIs at the ports `hosts` of this machine, for the `with` block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="front", daemon=True)
    thread.start()

    async def serve() -> asyncio.Server:
        """Listen at the port."""
        return await asyncio.start_server(lambda reader, writer: _lead(hosts, reader, writer), _HOST, port)

    server = asyncio.run_coroutine_threadsafe(serve(), loop).result(TURN_SECONDS)
    try:
        yield f"http://{_HOST}:{port}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _lead(hosts: Sequence[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass a connection on to the first host that takes it."""
    for host in hosts:
        with suppress(OSError, TimeoutError):
            upstream = await asyncio.wait_for(asyncio.open_connection(_HOST, host), CONNECT_SECONDS)
            for option in watched_socket():
                upstream[1].get_extra_info("socket").setsockopt(*option)
            await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer), return_exceptions=True)
            return
    writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes until their end."""
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    finally:
        writer.close()
