"""A time limit for the database in each request of the operator's API: what does not answer is said within seconds."""

from __future__ import annotations

import pymongo
from starlette.types import ASGIApp, Receive, Scope, Send

#: Seconds that the database may take for one request: less than a driver waits for a server, and more than any of these
#: queries takes.
ANSWER_SECONDS = 5.0
#: Goes on for as long as the page is open, and limits each of its looks itself.
_LIVE = "/admin/live"


class DatabaseLimit:
    """ASGI middleware; the limit is in the context that the request's threads get."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http" or not path.startswith("/admin/") or path == _LIVE:
            await self._app(scope, receive, send)
            return
        with pymongo.timeout(ANSWER_SECONDS):
            await self._app(scope, receive, send)
