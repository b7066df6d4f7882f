"""Partitions on loopback: relays in front of servers, which hold up what named programs send and are sent.

    scheduler ──┐
    worker-1  ──┼──► relay ──► server        each connection belongs to the program whose process opened it (/proc);
    worker-2  ──┘                            a held one keeps its bytes back until it is released, as TCP would

Nobody sees a closed connection, and a new one is taken and not answered: so does a network that drops all packets.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

#: Bytes moved at a time.
CHUNK_BYTES = 2**16
#: Seconds for the relays to begin and to end.
TURN_SECONDS = 10.0
#: The column of /proc/net/tcp with the socket's inode.
_INODE = 9


@dataclass
class Relays:
    """Relays that run in a thread of their own. `programs`: name → session id of its processes, as they are now."""

    programs: Callable[[], Mapping[str, int]]
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _listening: list[asyncio.Server] = field(default_factory=list)
    #: Connections being relayed.
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    #: (program, server) → whether bytes pass.
    _passing: dict[tuple[str | None, str], asyncio.Event] = field(default_factory=dict)

    def open(self, server: str, port: int) -> int:
        """Put a relay in front of a loopback port; the port of the relay."""

        async def serve() -> int:
            """Listen on a free port and return it."""

            def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                """Begin to relay one connection."""
                task = self._loop.create_task(self._relay(server, port, reader, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            listening = await asyncio.start_server(on_connection, "127.0.0.1", 0)
            self._listening.append(listening)
            return int(listening.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(serve(), self._loop).result(TURN_SECONDS)

    def hold(self, program: str, server: str) -> None:
        """Hold back all bytes between a program and a server, in both directions."""
        self._loop.call_soon_threadsafe(lambda: self._link(program, server).clear())

    def release(self, program: str, server: str) -> None:
        """Let the bytes that were held back pass, and all that follow."""
        self._loop.call_soon_threadsafe(lambda: self._link(program, server).set())

    @contextmanager
    def running(self) -> Iterator[Relays]:
        """Relay for the length of the `with` block."""
        thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(TURN_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    async def _end(self) -> None:
        """Close all connections."""
        for listening in self._listening:
            listening.close()
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _link(self, program: str | None, server: str) -> asyncio.Event:
        """The event that is set while bytes pass between the two; made at the first use."""
        link = self._passing.get((program, server))
        if link is None:
            link = self._passing[program, server] = asyncio.Event()
            link.set()
        return link

    async def _relay(self, server: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on to its server, as long as its link is not held."""
        program = owner(self.programs(), writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1])
        link = self._link(program, server)
        with suppress(OSError):
            await link.wait()
            upstream = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pump(link, reader, upstream[1]), _pump(link, upstream[0], writer))
        writer.close()


async def _pump(link: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Move bytes one way while the link lets them pass, the end of the connection too."""
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            await link.wait()
            writer.write(chunk)
            await writer.drain()
        await link.wait()
    finally:
        writer.close()


def owner(programs: Mapping[str, int], client_port: int, server_port: int) -> str | None:
    """The program whose process has the client's end of this loopback connection; None: another's, or closed by now."""
    inode = _inode(client_port, server_port)
    sessions = {session: name for name, session in programs.items()}
    if inode is None:
        return None
    for process in Path("/proc").iterdir():
        with suppress(ValueError, OSError):
            program = sessions.get(os.getsid(int(process.name)))
            if program is not None and _has_socket(process, inode):
                return program
    return None


def members(session: int) -> list[int]:
    """Pids of all processes of a session: a program's own, whatever process groups they made."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(ValueError, OSError):
            if os.getsid(int(process.name)) == session:
                found.append(int(process.name))
    return found


def _inode(client_port: int, server_port: int) -> str | None:
    """Inode of the client's socket of this connection, by /proc/net/tcp; None if it is closed."""
    mine, its = f":{client_port:04X}", f":{server_port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1].endswith(mine) and columns[2].endswith(its):
            return columns[_INODE]
    return None


def _has_socket(process: Path, inode: str) -> bool:
    """Whether a process has that socket open."""
    wanted = f"socket:[{inode}]"
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):
            if os.readlink(descriptor) == wanted:  # noqa: PTH115 - no path of a file
                return True
    return False
