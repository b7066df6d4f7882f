"""How often a wallet or an address may ask: in front of everything that costs more than an answer from memory.

    any request           per address     before anything else is done for it
    challenge, login      per address     each login costs some 10 requests to RabbitMQ and two writes
    login, leave          per wallet      once its signature or token is checked: nobody else can use up its share
    ping, upload          per wallet      once its token is checked
    logs, deals           per address     each costs the check of a signature, or a hundred tasks and their events
    logs                  per wallet      once its signature is checked: from many addresses it has no more

A challenge is not counted for its wallet: whoever asks has proven nothing yet, so that a stranger could use up
another's share and keep it out. It writes nothing, and its cost is bounded by the address.

How they are counted: `config.http_server.rates`. The limits are far above what an honest machine with 64 slots does.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from config.http_server.address import origin_of_scope
from config.http_server.rates import RateLimits
from pipeline.api.errors import answer


class AddressLimit:
    """ASGI middleware: counts each request of an address, and those to costly routes once more; answers 429."""

    def __init__(self, app: ASGIApp, *, rates: RateLimits) -> None:
        self._app = app
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless it is one too many."""
        if scope["type"] == "http":
            origin, kind = origin_of_scope(scope), _kind(scope["path"])
            refused = self._rates.refused("requests", origin)
            if refused is None and kind is not None:
                refused = self._rates.refused(kind, origin)
            if refused is not None:
                await answer(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _kind(path: str) -> str | None:
    """The rate limit that a costly route has beside that of all requests; None for other routes."""
    if path.startswith(("/workers/challenge", "/workers/login")):
        return "sign_in"
    if path.rstrip("/").endswith("/logs") or path.startswith(("/tasks/logs/", "/deals/")):
        return "logs"
    return None
