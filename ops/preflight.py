"""What must be right before the scheduler's first process starts; imports little, so that a mistake is told at once."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing

from chain.hub import Hub
from chain.keystore import load_key
from chain.pool import connect
from config.endpoints import public_endpoints
from config.settings import Settings
from ops.stack import ports
from protocol.errors import BadSetting
from protocol.types import Contract, Wallet

#: Names of the scheduler's processes, in the order in which they start.
PROCESSES = ("api", "watch", "pipeline", "lane", "beat", "flower")


def check(settings: Settings, only: Collection[str] = ()) -> tuple[Wallet, tuple[str, ...]]:
    """The scheduler's wallet, and which of PROCESSES to run here. `only`: names wanted; empty means all.

    Raises BadSetting, BadKeystore, WrongChain, RpcUnavailable, PortTaken.
    """
    unknown = set(only) - set(PROCESSES)
    if unknown:
        raise BadSetting(name="--only", why=f"there is no process {', '.join(unknown)}", fix=f"Choose of {PROCESSES}.")
    wallet = load_key(settings).wallet
    public_endpoints(settings)
    _check_chain(settings)
    wanted = tuple(name for name in PROCESSES if not only or name in only)
    if "api" in wanted:
        ports.require_free(settings.api_port, part="the API", setting="SLUICE_API_PORT")
    if "flower" in wanted:
        ports.require_free(settings.flower_port, part="Flower", setting="SLUICE_FLOWER_PORT")
    return wallet, wanted


def _check_chain(settings: Settings) -> None:
    if settings.hub is None or settings.workerpool is None:
        missing = "SLUICE_HUB" if settings.hub is None else "SLUICE_WORKERPOOL"
        raise BadSetting(name=missing, why="it is not set", fix="Give the contract's address.")
    with closing(connect(settings)) as rpc:
        Hub(rpc, Contract(settings.hub.lower())).check_chain(settings)
