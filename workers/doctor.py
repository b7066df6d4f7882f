"""Can this machine work, and if not, why not? One line per part, each checked on its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from chain.hub import Hub
from chain.keystore import load_key
from chain.pool import connect
from config.settings import Settings
from protocol.errors import SluiceError
from protocol.types import Contract
from workers.container import Engine
from workers.machine import adopt
from workers.pool_api import PoolApi

#: Free bytes below which images and results will soon not fit.
LEAST_DISK = 5 * 2**30
#: nRLC in one RLC.
NRLC = 10**9
#: Wei below which a wallet soon cannot pay for gas: some hundred transactions on a busy chain.
LEAST_WEI = 10**16


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one part."""

    part: str
    ok: bool
    says: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at each part in turn; a part that needs a broken one is left out."""
    yield _look("wallet", lambda: str(load_key(settings).wallet))
    yield _look("docker", lambda: _docker(settings))
    yield _disk(settings)
    pool = _look("pool", lambda: f"workerpool {PoolApi(settings.api_url).config().workerpool}")
    yield pool
    if pool.ok:
        yield _look("chain", lambda: _chain(settings))
        yield _look("funds", lambda: _funds(settings))


def _look(part: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(part, True, ask())
    except SluiceError as error:
        return Finding(part, False, str(error))


def _docker(settings: Settings) -> str:
    engine = Engine(settings.docker_host)
    try:
        info = engine.require_reach(os.geteuid())
    finally:
        engine.close()
    runtimes = ", ".join(sorted(info.get("Runtimes") or {}))
    memory = int(info["MemTotal"])
    need = settings.slots * settings.memory_per_slot
    warning = f"; {settings.slots} slots may want {need / 2**30:.1f} GiB" if need > memory else ""
    return (
        f"{engine.host}, version {info['ServerVersion']}, {info['NCPU']} CPUs, {memory / 2**30:.1f} GiB"
        f"{warning}, runtimes {runtimes}"
    )


def _disk(settings: Settings) -> Finding:
    folder = settings.home.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Finding("disk", free >= LEAST_DISK, f"{free / 2**30:.1f} GiB free at {settings.home}")


def _adopted(settings: Settings) -> Settings:
    return adopt(settings, PoolApi(settings.api_url).config())


def _chain(settings: Settings) -> str:
    own = _adopted(settings)
    with closing(connect(own)) as rpc:
        hub = Hub(rpc, Contract(str(own.hub)))
        hub.check_chain(own)
        return f"{rpc.name}, chain {own.chain_id}, block {hub.head()}, hub {own.hub}"


def _funds(settings: Settings) -> str:
    own, wallet = _adopted(settings), load_key(settings).wallet
    with closing(connect(own)) as rpc:
        hub = Hub(rpc, Contract(str(own.hub)))
        account, (wei,) = hub.account(wallet), hub.balances([wallet])
    gas = "" if wei >= LEAST_WEI else " (little: contributions and reveals need gas)"
    return f"{account.stake / NRLC:g} RLC free, {account.locked / NRLC:g} RLC locked, {wei / 10**18:g} coins{gas}"
