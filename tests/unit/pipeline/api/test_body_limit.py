"""Limits of request bodies: size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from pipeline.api.limits.body_limit import REPORT_BYTES, SMALL_BYTES, BodyLimit

RESULT_BYTES = 10_000_000
TASK = "/tasks/0x" + "11" * 32


async def _length(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def status(method: str, path: str, chunks: Iterable[int], *, declared: int | None = None) -> int:
    """The answer to a body sent in chunks of these sizes."""
    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
    sizes = list(chunks)
    queue: list[Message] = [
        {"type": "http.request", "body": bytes(size), "more_body": index + 1 < len(sizes)}
        for index, size in enumerate(sizes)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return queue.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> int:
        try:
            await BodyLimit(_length, result_bytes=RESULT_BYTES)(scope, receive, send)
        except HTTPException as error:
            return error.status_code
        return int(sent[0]["status"])

    return asyncio.run(ask())


def test_a_body_up_to_the_cap_passes() -> None:
    assert status("POST", "/workers/ping", [SMALL_BYTES], declared=SMALL_BYTES) == 200


def test_a_body_that_declares_too_much_is_refused_unread() -> None:
    assert status("POST", "/workers/ping", [], declared=SMALL_BYTES + 1) == 413


def test_a_body_without_a_length_is_cut_off_when_it_grows_too_long() -> None:
    assert status("POST", "/workers/ping", [SMALL_BYTES, 1, SMALL_BYTES]) == 413


def test_a_report_may_carry_two_log_tails() -> None:
    assert status("POST", f"{TASK}/reports", [REPORT_BYTES], declared=REPORT_BYTES) == 200
    assert status("POST", f"{TASK}/reports", [], declared=REPORT_BYTES + 1) == 413


def test_only_a_result_may_be_large() -> None:
    assert status("PUT", f"{TASK}/result", [RESULT_BYTES], declared=RESULT_BYTES) == 200
    assert status("POST", f"{TASK}/result", [], declared=RESULT_BYTES) == 413
    assert status("PUT", f"{TASK}/result/more", [], declared=RESULT_BYTES) == 413
    assert status("PUT", f"{TASK}/result", [], declared=RESULT_BYTES + 1) == 413
