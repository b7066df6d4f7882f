"""A file server on loopback whose answers a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from tests.faulty import Fault
from tests.faulty.http import Handler, beside


@contextmanager
def file_server(answer: Callable[[int], Fault]) -> Iterator[str]:
    """Host and port of a server that gives `answer(n)` to its `n`th request, from 0."""
    seen: list[str] = []

    class Files(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            seen.append(self.path)
            self.send(answer(len(seen) - 1))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
    with beside(server):
        yield f"127.0.0.1:{server.server_port}"
