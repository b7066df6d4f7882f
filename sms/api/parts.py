"""What routes take: the service, who asks, and a body of bounded size that must come in time."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.requests import ClientDisconnect

from config.http_server.address import origin_of_scope
from config.http_server.rates import RateLimits
from protocol.enclave.secrets import MOST_VALUE_BYTES
from protocol.errors import BadMessage, TooLarge
from sms.service import SecretService

#: Seconds in which a body must be whole: it has 4 KB.
BODY_SECONDS = 10.0
#: Characters of a signature with `0x`, and of what Java may put around it.
_MOST_SIGNATURE = 200


def _service(request: Request) -> SecretService:
    """The secret service behind the routes, as a dependency of routes."""
    service: SecretService = request.app.state.service
    return service


async def _body(request: Request) -> bytes:
    """The whole body. Raises TooLarge as soon as it is too large, BadMessage if it is slow or cut."""
    limits: RateLimits = request.app.state.rates
    kind = "tasks" if request.url.path.startswith("/tee/") else "secrets"
    refused = limits.refused(kind, origin_of_scope(request.scope))
    if refused is not None:
        raise refused
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_VALUE_BYTES:
                    raise TooLarge(limit=MOST_VALUE_BYTES)
    except TimeoutError:
        raise BadMessage(why=f"the body was not whole within {BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise BadMessage(why="the connection ended before the body was whole") from None
    return bytes(body)


Service = Annotated[SecretService, Depends(_service)]
Body = Annotated[bytes, Depends(_body)]
Signature = Annotated[str, Header(alias="authorization", max_length=_MOST_SIGNATURE)]
