"""A node with faults, over httpx for unit tests and over a loopback port for the others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.faulty.answering import Answering
from tests.faulty.answers import Call, Fault, Honest, Reply, honest

#: Seconds the honest node may take.
UPSTREAM_SECONDS = 30.0


class FaultyNode:
    """Answers as `fault` says, which may be changed at any time; `faults` are used up first, one an exchange."""

    def __init__(self, ask: Honest) -> None:
        self._ask = ask
        self.fault: Fault = honest
        self.faults: list[Fault] = []
        #: Methods asked for, in order.
        self.asked: list[str] = []

    def reply(self, body: bytes) -> Reply:
        """To one HTTP request."""
        calls = json.loads(body)
        as_list = isinstance(calls, list)
        listed: Sequence[Call] = calls if as_list else [calls]
        self.asked += [call["method"] for call in listed]
        fault = self.faults.pop(0) if self.faults else self.fault
        return fault(listed, as_list, self._ask)

    def adapter(self) -> Answering:
        """The node for an `Rpc`, without a socket."""

        def handle(request: httpx.Request) -> httpx.Response:
            reply = self.reply(request.content)
            if reply.cut:
                raise httpx.RemoteProtocolError("server disconnected without sending a response")
            return httpx.Response(reply.status, content=reply.body)

        return Answering(handle)


@contextmanager
def upstream(url: str) -> Iterator[Honest]:
    """The node at `url` as the honest one, as long as the block lasts."""
    with httpx.Client(timeout=UPSTREAM_SECONDS, verify=False, trust_env=False) as client:

        def ask(calls: Sequence[Call]) -> list[dict[str, Any]]:
            found = client.post(url, json=list(calls)).json()
            by_id = {answer["id"]: answer for answer in found}
            return [by_id[call["id"]] for call in calls]

        yield ask


@contextmanager
def serving(node: FaultyNode) -> Iterator[str]:
    """The node on a loopback port, as long as the block lasts; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                reply = node.reply(self.rfile.read(int(self.headers["content-length"])))
            except httpx.HTTPError:
                # The honest node does not answer: neither does this one.
                self.close_connection = True
                return
            time.sleep(reply.delay)
            if reply.cut:
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing: who asked has gone."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="faulty-node", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
