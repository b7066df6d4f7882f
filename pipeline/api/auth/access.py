"""What routes depend on: the services, and the wallet that a token proves."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from pipeline.api.auth.tokens import read_token
from pipeline.api.services import Services
from protocol.errors import NotSignedIn, Refused
from protocol.types import Wallet


def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Access = Annotated[Services, Depends(_services)]


def _signed_in(services: Access, authorization: Annotated[str, Header(include_in_schema=False)] = "") -> Wallet:
    """The wallet of a valid token, unless it was banned or revoked since: the token alone does not outlive that."""
    keys = {key.id: key.token for key in services.keys.verifying(services.clock())}
    token = read_token(keys, authorization, services.clock())
    terms = services.store.workers.token_terms(token.wallet)
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
