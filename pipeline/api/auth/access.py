"""What routes depend on: the services, and the wallet that a token proves."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from pipeline.api.auth.tokens import token_wallet
from pipeline.api.services import Services
from protocol.errors import NotSignedIn, Refused
from protocol.types import Wallet


def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Access = Annotated[Services, Depends(_services)]


def _signed_in(services: Access, authorization: Annotated[str, Header(include_in_schema=False)] = "") -> Wallet:
    """The wallet of a valid token, unless it was banned since: the token alone does not outlive a ban."""
    wallet = token_wallet(services.keys.token, authorization, services.clock())
    refuse_banned(services, wallet, known=True)
    return wallet


def refuse_banned(services: Services, wallet: Wallet, *, known: bool) -> None:
    """Raise Refused if a wallet is banned; NotSignedIn if it should be `known` and is not."""
    worker = services.store.workers.get_worker(wallet)
    if worker is None and known:
        raise NotSignedIn(why="this wallet has never signed in here")
    if worker is not None and worker.banned:
        raise Refused(why="this wallet is banned from the pool")


SignedIn = Annotated[Wallet, Depends(_signed_in)]
