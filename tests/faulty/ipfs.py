"""An IPFS node that can be away or full, as health checks and results meet it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer

from tests.faulty import Answer
from tests.faulty.http import Handler, beside

#: The CID of every result here.
CID = "Qm" + "a" * 44


@dataclass
class IpfsStub:
    """What the health checks ask of kubo, and results that are added. `away`: it answers with errors; `full`: it has
    no room for results.
    """

    away: bool = False
    full: bool = False


@contextmanager
def serving(stub: IpfsStub) -> Iterator[str]:
    """The URL of its RPC API, as long as the block lasts."""

    class Answers(Handler):
        def do_POST(self) -> None:  # noqa: N802 - the library's name
            self.rfile.read(int(self.headers.get("content-length") or 0))
            if stub.away:
                self.send(Answer(500, b"{}"))
            elif not self.path.startswith("/api/v0/add"):
                self.send(Answer(200, b'{"Version": "0.42.0"}'))
            elif stub.full:
                self.send(Answer(500, b'{"Message":"write: no space left on device","Code":0,"Type":"error"}'))
            else:
                self.send(Answer(200, b'{"Hash": "' + CID.encode() + b'"}'))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    with beside(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"
