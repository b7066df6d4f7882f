"""What routes depend on: the services, and the wallet that a token proves."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from pipeline.api.auth.tokens import read_token
from pipeline.api.services import Services
from pipeline.store.machine.terms import KEPT_SECONDS
from protocol.errors import NotSignedIn, Refused
from protocol.types import Wallet


async def _services(request: Request) -> Services:
    """The application's `Services`, as a dependency of routes. Asynchronous, so that FastAPI needs no other thread
    for it.
    """
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Access = Annotated[Services, Depends(_services)]


_Token = Annotated[str, Header(alias="authorization", include_in_schema=False)]


def _signed_in(services: Access, authorization: _Token = "") -> Wallet:
    """The wallet of a valid token, unless it was banned or revoked since: the token alone does not outlive that."""
    return _wallet_of(services, authorization)


def _signed_in_lately(services: Access, authorization: _Token = "") -> Wallet:
    """The wallet of a request's token; a ban or revocation by another process may count KEPT_SECONDS later."""
    return _wallet_of(services, authorization, kept_seconds=KEPT_SECONDS)


def _wallet_of(services: Access, authorization: str, *, kept_seconds: float = 0.0) -> Wallet:
    """The wallet whose token a request carries. Raises NotSignedIn, Refused for a banned one."""
    keys = {key.id: key.token for key in services.keys.verifying(services.clock())}
    token = read_token(keys, authorization, services.clock())
    terms = services.store.workers.token_terms(token.wallet, kept_seconds=kept_seconds)
    if terms is None:
        raise NotSignedIn(why="this wallet has never signed in here")
    banned, not_before = terms
    refuse_banned(banned=banned)
    if token.issued_at < not_before:
        raise NotSignedIn(why="the pool's operator has ended this token")
    return token.wallet


def refuse_banned(*, banned: bool) -> None:
    """Raise Refused if a wallet is banned."""
    if banned:
        raise Refused(why="this wallet is banned from the pool: ask its operator")


SignedIn = Annotated[Wallet, Depends(_signed_in)]
#: For what a machine says of a task that it has.
SignedInLately = Annotated[Wallet, Depends(_signed_in_lately)]
