"""What a client sends on after the answer to its request: nobody wants it, and the server must not read it for ever."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse

from tests.integration.api.small_server import ends, small_server
from tests.waiting import ample


def test_a_body_that_goes_on_after_its_answer_is_read_for_a_while_and_its_sender_has_the_answer() -> None:
    """As of a request without a token: in chunks it has no length that would end it, and each chunk costs time."""
    app = FastAPI()

    @app.put("/result")
    def refuse() -> Response:
        return Response("no", 401)

    sent_it_all = threading.Event()

    def without_end() -> Iterator[bytes]:
        until = time.monotonic() + ample(10)
        while time.monotonic() < until:
            yield b"x" * 1000
        sent_it_all.set()

    with small_server(app) as port:
        answer = httpx.put(f"http://127.0.0.1:{port}/result", content=without_end(), timeout=ample(20))
        assert (answer.status_code, answer.text) == (401, "no")
        assert not sent_it_all.is_set()


def test_the_rest_of_an_answered_body_keeps_its_connection_for_the_next_request() -> None:
    app = FastAPI()

    @app.put("/result")
    def refuse() -> Response:
        return Response("no", 401)

    with small_server(app, head=60.0) as port, closing(socket.create_connection(("127.0.0.1", port))) as sender:
        sender.settimeout(ample(10))
        for _ in range(2):
            sender.sendall(b"PUT /result HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n")
            said = b""
            while not said.endswith(b"no"):
                said += sender.recv(4096)
            assert b" 401 " in said
            sender.sendall(b"zip")


@pytest.mark.parametrize("whole", [True, False], ids=["after its answer", "in the middle of it"])
def test_nonsense_behind_a_request_that_is_answered_ends_the_connection_and_writes_no_traceback(
    whole: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    app = FastAPI()
    go_on = asyncio.Event()

    @app.put("/result")
    async def refuse() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"no"
            if not whole:
                await go_on.wait()

        return StreamingResponse(parts(), 401)

    with small_server(app, head=60.0) as port, closing(socket.create_connection(("127.0.0.1", port))) as sender:
        sender.settimeout(ample(10))
        sender.sendall(b"PUT /result HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        said = b""
        while not said.endswith(b"0\r\n\r\n" if whole else b"no\r\n"):
            said += sender.recv(4096)
        sender.sendall(b"nonsense\r\n")
        assert ends(sender) == b""
    assert "Traceback" not in capsys.readouterr().err


def test_a_request_whose_end_is_ambiguous_is_the_last_of_its_connection() -> None:
    """A proxy might go by the length: for it what follows is a body, for this server the request of somebody else."""
    app, asked = FastAPI(), []

    @app.put("/result")
    def put() -> Response:
        asked.append("result")
        return Response("no", 401)

    @app.get("/hidden")
    def hidden() -> Response:
        asked.append("hidden")
        return Response("yes")

    head = b"PUT /result HTTP/1.1\r\nhost: x\r\ncontent-length: 44\r\ntransfer-encoding: chunked\r\n\r\n"
    with small_server(app) as port, closing(socket.create_connection(("127.0.0.1", port))) as sender:
        sender.settimeout(ample(10))
        sender.sendall(head + b"0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: x\r\n\r\n")
        said = b""
        while more := sender.recv(4096):
            said += more
    assert said.startswith(b"HTTP/1.1 401 ")
    assert said.count(b"HTTP/1.1") == 1
    assert asked == ["result"]
