"""Serves a `Door` inside the network of one container, which reaches nothing else and is reached by nothing else.

The listening socket is made in the container's network namespace, so this process has to be root on the engine's
machine. The program starts first, and finds nobody there for some milliseconds.
"""

from __future__ import annotations

import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any, Final

import structlog

from protocol.enclave.reports import REPORT_BYTES
from protocol.enclave.session import POST_COMPUTE, PRE_COMPUTE
from protocol.errors import BadInput, BadMessage, NoSuchContainer, NotSignedIn, RefusedHere, TooLarge
from workers.enclave.door import FILES, HOST, Door
from workers.sandbox.engine.container import Engine
from workers.sandbox.network import egress

log = structlog.get_logger(__name__)

#: Seconds without a byte after which a connection is closed.
_STALL_SECONDS: Final = 60.0
_PIECE_BYTES: Final = 2**16
#: Connections at a time, each of which costs this process a thread and a file: programs have one or two.
_CONNECTIONS: Final = 16
#: Digits of a chunk's length, and bytes of a chunk's first line at most.
_LINE_BYTES: Final = 1024
_EXIT: Final = re.compile(r"/compute/(?P<stage>pre|post)/(?P<task>0x[0-9a-f]{64})/exit(?:-causes)?")
_COMPUTED: Final = re.compile(r"/(?:compute/post|iexec_out)/(?P<task>0x[0-9a-f]{64})/computed")
_PROGRAMS: Final = {"pre": PRE_COMPUTE, "post": POST_COMPUTE}
_RESULTS: Final = re.compile(r"/v1/results/?")


@contextmanager
def serving(engine: Engine, container: str, door: Door) -> Iterator[None]:
    """Serve `door` in a running container's network until the block ends. Raises RefusedHere if this process cannot
    enter it; nothing is served to a container that has ended.
    """
    listener = _listen(engine, container)
    if listener is None:
        yield
        return
    server = DoorServer(listener, door)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="door", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class DoorServer(ThreadingHTTPServer):
    """Serves connections to `listener`: at most _CONNECTIONS at a time, each further one is closed at once. After
    `server_close` none of its threads runs any more.
    """

    daemon_threads = False

    def __init__(self, listener: socket.socket, door: Door) -> None:
        super().__init__((HOST.partition(":")[0], 0), _handler(door), bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._free = Semaphore(_CONNECTIONS)
        self._open = set[socket.socket]()
        self._told = False

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 # as the library calls it
        """Whether to serve one more connection; the library calls it for each."""
        if not self._free.acquire(blocking=False):
            return False
        self._open.add(request)
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.discard(request)
            self._free.release()

    def server_close(self) -> None:
        """Break the connections that are open, and wait for their threads."""
        for request in tuple(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, *_: Any) -> None:
        """Log that a connection broke; once, since a program may break as many as it likes."""
        if not self._told:
            self._told = True
            log.warning("Could not answer an enclave.", action="door_broken", why=type(sys.exception()).__name__)


def _listen(engine: Engine, container: str) -> socket.socket | None:
    """A listening socket in the container's network; None if the container has ended. Raises RefusedHere."""
    try:
        process, address = engine.process_of(container)
        found = egress.inside(process, address, open_listener)
        running = engine.state(container).running
    except NoSuchContainer:
        return None
    if found is None and running:
        raise RefusedHere(why="this process cannot enter its containers' network: it has to be root beside the engine")
    if found is not None and not running:
        # It may be the network of another process that has its number now.
        found.close()
        return None
    return found


def open_listener() -> socket.socket | None:
    """A socket that listens in this thread's network; None if that is the machine's own, where others could connect."""
    # A container without a network has no address by which it could be told from another.
    if Path("/proc/thread-self/ns/net").samefile("/proc/self/ns/net"):
        return None
    host, _, port = HOST.partition(":")
    return socket.create_server((host, int(port)))


def _handler(door: Door) -> type[BaseHTTPRequestHandler]:
    """A request handler class for one door, as `ThreadingHTTPServer` takes it."""

    class Handler(_Handler):
        pass

    Handler.door = door
    return Handler


class _Handler(BaseHTTPRequestHandler):
    """HTTP requests of a program, passed to its door."""

    door: Door
    protocol_version = "HTTP/1.1"
    timeout = _STALL_SECONDS

    def do_GET(self) -> None:
        """Send a file to pre-compute."""
        self._answer(self._send_file)

    def do_POST(self) -> None:
        """Take a report, or the result."""
        self._answer(self._take)

    def _answer(self, act: Any) -> None:
        """Call `act`, and answer its errors with a status."""
        # What was refused may not have been read to its end.
        self.close_connection = True
        try:
            act()
        except NotSignedIn as error:
            self._say(HTTPStatus.UNAUTHORIZED, str(error))
        except TooLarge as error:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))
        except BadMessage as error:
            self._say(HTTPStatus.BAD_REQUEST, str(error))
        except BadInput as error:
            self._say(HTTPStatus.NOT_FOUND, str(error))

    def _send_file(self) -> None:
        """Send the file that the path names."""
        if not self.path.startswith(FILES):
            self._say(HTTPStatus.NOT_FOUND, "")
            return
        path = self.door.file(self.path.removeprefix(FILES))
        with path.open("rb") as file:
            self.send_response(HTTPStatus.OK)
            self.send_header("content-length", str(path.stat().st_size))
            self.send_header("connection", "close")
            self.end_headers()
            shutil.copyfileobj(file, self.wfile)

    def _take(self) -> None:
        """Pass the body to the door: a zip, exit causes, or a signed digest, by the path."""
        signed = self.headers.get("authorization", "")
        if _RESULTS.fullmatch(self.path):
            self.door.take_zip(signed, self._body())
            self._say(HTTPStatus.OK, "stored")
            return
        exits = _EXIT.fullmatch(self.path)
        path = exits or _COMPUTED.fullmatch(self.path)
        if path is None:
            self._say(HTTPStatus.NOT_FOUND, "")
            return
        self.door.require_task(path["task"])
        body = b""
        for piece in self._body():
            body += piece
            if len(body) > REPORT_BYTES:
                raise TooLarge(limit=REPORT_BYTES)
        if exits:
            first = self.door.take_exit_causes(_PROGRAMS[exits["stage"]], signed, body)
            self._say(HTTPStatus.OK if first else HTTPStatus.ALREADY_REPORTED, "")
            return
        self.door.take_result(signed, body)
        self._say(HTTPStatus.OK, path["task"])

    def _say(self, status: HTTPStatus, words: str) -> None:
        """Answer with a status and a text."""
        content = words.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> Iterator[bytes]:
        """The request's body, piece by piece. Raises BadMessage if it was cut."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := self._chunk_bytes():
                yield from self._exactly(size)
                self.rfile.readline(_LINE_BYTES)
        else:
            yield from self._exactly(int(self.headers.get("content-length", "0")))

    def _chunk_bytes(self) -> int:
        """The length of the next chunk; 0 at the end. Raises BadMessage."""
        try:
            return int(self.rfile.readline(_LINE_BYTES).partition(b";")[0], 16)
        except ValueError:
            raise BadMessage(why="the body is not in chunks, or was cut") from None

    def _exactly(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, piece by piece. Raises BadMessage if there are fewer."""
        while size > 0:
            piece = self.rfile.read(min(size, _PIECE_BYTES))
            if not piece:
                raise BadMessage(why="the body was cut")
            size -= len(piece)
            yield piece

    def log_message(self, *_: object) -> None:
        """Log nothing per request: what matters is logged where it is handled."""
