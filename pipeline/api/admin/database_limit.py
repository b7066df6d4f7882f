"""A time limit for the database in those requests of the operator's API that query nothing else, so that a database
which does not answer is reported within seconds.
"""

from __future__ import annotations

import pymongo
from starlette.types import ASGIApp, Receive, Scope, Send

#: Seconds from the beginning of a request in which the database must have answered all of it: less than a driver waits
#: for a server, and more than any of these queries takes.
ANSWER_SECONDS = 5.0
#: Routes that wait for other servers too: what the database still has to do must not fail because those were slow. They
#: limit the database themselves, each call or each check.
UNLIMITED = ("/admin/status", "/admin/live", "/admin/ledger", "/admin/stake", "/admin/enrolment")


class DatabaseLimit:
    """ASGI middleware; the limit is in the context that the request's threads get."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http" or not path.startswith("/admin/") or path.startswith(UNLIMITED):
            await self._app(scope, receive, send)
            return
        with pymongo.timeout(ANSWER_SECONDS):
            await self._app(scope, receive, send)
