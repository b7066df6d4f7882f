"""Caps the size of request bodies before anything parses them."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.api.errors import answer
from protocol.errors import TooLarge
from protocol.wire import LOG_TAIL_CHARACTERS

#: Bytes: a login is 1 KB, a ping with its 1024 tasks 72 KB.
SMALL_BYTES = 128 * 1024
#: Bytes of a report: two log tails, each character at worst a 6-byte JSON escape (12 outside the basic plane).
REPORT_BYTES = SMALL_BYTES + 2 * 12 * LOG_TAIL_CHARACTERS
_RESULT = re.compile(r"^/tasks/[^/]+/result/?$")
_REPORT = re.compile(r"^/tasks/[^/]+/reports/?$")


class BodyLimit:
    """ASGI middleware: answers 413 by the declared length, or as soon as a body without one grows too long."""

    def __init__(self, app: ASGIApp, *, result_bytes: int) -> None:
        """`result_bytes`: most that a result upload may carry."""
        self._app = app
        self._result_bytes = result_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counted body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["method"], scope["path"])
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        # The server has already refused a length that is not a number.
        if int(declared) > limit:
            await answer(TooLarge(limit=limit))(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            """The body's next part, for the route that reads it; 413 once all parts are larger than the limit."""
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                # The one exception that FastAPI passes on from its body parser as it is.
                raise HTTPException(413, str(TooLarge(limit=limit)))
            return message

        await self._app(scope, counted, send)

    def _limit(self, method: str, path: str) -> int:
        if method == "PUT" and _RESULT.match(path):
            return self._result_bytes
        return REPORT_BYTES if method == "POST" and _REPORT.match(path) else SMALL_BYTES
