"""Caps the size of request bodies before anything parses them, and the time in which they must come."""

from __future__ import annotations

import asyncio
import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.api.errors import answer
from protocol.errors import TooLarge
from protocol.wire import LOG_TAIL_CHARACTERS

#: Most bytes of a body: a login is 1 KB, a ping with its 1024 tasks 72 KB.
SMALL_BYTES = 128 * 1024
#: Bytes of a report: two log tails, each character at worst a 6-byte JSON escape (12 outside the basic plane).
REPORT_BYTES = SMALL_BYTES + 2 * 12 * LOG_TAIL_CHARACTERS
#: Seconds in which a body that is no result must be whole: a report of 2.5 MB then takes a line of 1 Mbit/s. A result's
#: least rate is `upload_turns`'.
BODY_SECONDS = 30.0
#: The rest of the body is not read, so the connection cannot go on.
_CLOSE = {"connection": "close"}
_RESULT = re.compile(r"^/tasks/[^/]+/result/?$")
_REPORT = re.compile(r"^/tasks/[^/]+/reports/?$")


class BodyLimit:
    """ASGI middleware: answers 413 by the declared length, or as soon as a body without one grows too long, and 408 to
    one that is not whole in time.
    """

    def __init__(self, app: ASGIApp, *, result_bytes: int, body_seconds: float = BODY_SECONDS) -> None:
        """`result_bytes`: most that a result upload may carry; `body_seconds`: for any other body."""
        self._app = app
        self._result_bytes = result_bytes
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counted body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_result = scope["method"] == "PUT" and _RESULT.match(scope["path"]) is not None
        limit = self._result_bytes if is_result else _small_limit(scope["method"], scope["path"])
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        # The server has already refused a length that is not a number.
        if int(declared) > limit:
            await answer(TooLarge(limit=limit))(scope, receive, send)
            return
        read, whole = 0, False
        deadline = asyncio.get_running_loop().time() + self._body_seconds

        async def counted() -> Message:
            """The body's next part, for the route that reads it; 413 once all parts are larger than the limit."""
            nonlocal read, whole
            if whole or is_result:
                # What comes after the body is the end of the connection, for which there is no time limit.
                message = await receive()
            else:
                message = await _in_time(receive, deadline)
            whole = whole or not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > limit:
                # The one exception that FastAPI passes on from its body parser as it is.
                raise HTTPException(413, str(TooLarge(limit=limit)), _CLOSE)
            return message

        await self._app(scope, counted, send)


async def _in_time(receive: Receive, deadline: float) -> Message:
    """The next part of a request's body. Raises HTTPException 408 at the deadline."""
    try:
        async with asyncio.timeout_at(deadline):
            return await receive()
    except TimeoutError:
        raise HTTPException(408, "The body did not come in time.", _CLOSE) from None


def _small_limit(method: str, path: str) -> int:
    """Most bytes of a body that is no result: a report may carry what an app printed."""
    return REPORT_BYTES if method == "POST" and _REPORT.match(path) else SMALL_BYTES
