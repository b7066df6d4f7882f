"""`sluice worker init`: what a machine needs before it may work, and what to do next with its new wallet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chain.contracts.hub import Hub
from chain.rpc.pool import connect
from config.settings import Settings
from protocol.amounts import ether, rlc
from protocol.errors import SluiceError
from protocol.gas import gas_for_task
from protocol.types import Contract, Wallet
from workers.fitness.rules import TASKS_OF_GAS
from workers.pool.api import PoolApi
from workers.pool.settings import complete_settings


@dataclass(frozen=True, slots=True)
class Needs:
    """What a pool's machine should hold. `stake_nrlc`: None if the pool has sold nothing yet."""

    workerpool: str
    chain_id: int
    gas_wei: int
    stake_nrlc: int | None


def needs(settings: Settings) -> Needs:
    """What the pool's newest tasks ask of a wallet, at the node's gas price. Raises what pool and node raise."""
    api = PoolApi.of(settings)
    try:
        pool = api.config()
    finally:
        api.close()
    rpc = connect(complete_settings(settings, pool))
    try:
        price = Hub(rpc, Contract(pool.hub)).gas_price()
    finally:
        rpc.close()
    return Needs(pool.workerpool, pool.chain_id, TASKS_OF_GAS * gas_for_task(price), pool.least_stake)


def ask_needs(settings: Settings) -> tuple[Needs | None, str | None]:
    """The needs, or why they are not known: a wallet can be made without a pool."""
    try:
        return needs(settings), None
    except SluiceError as error:
        return None, str(error)


def advice(wallet: Wallet, keystore: Path, password_file: Path, found: Needs | None, why: str | None) -> list[str]:
    """What to do next, line by line."""
    said = [
        f"wallet         {wallet}",
        f"keystore       {keystore}   keep a copy: without it what the wallet holds is lost",
        f"password       {password_file}",
        "",
    ]
    if found is None:
        said += [
            f"What it needs is not known: {why}",
            "It will need the chain's native token for gas, and RLC as stake for tasks that are voted on.",
        ]
    else:
        stake = "some RLC: the pool has sold nothing yet, and votes lock 30 % of a task's price"
        if found.stake_nrlc == 0:
            stake = "nothing for this pool's tasks of trust 1; votes lock 30 % of a task's price"
        elif found.stake_nrlc is not None:
            stake = f"{rlc(found.stake_nrlc)} RLC or more for each slot: so much a vote on its newest tasks locks"
        said += [
            f"Fund it on chain {found.chain_id} for workerpool {found.workerpool}:",
            f"  gas          {ether(found.gas_wei)} of the native token ({TASKS_OF_GAS} tasks): send it to the wallet",
            f"  stake        {stake}",
            "               send RLC to the wallet, then deposit it in the hub: `sluice worker deposit '12.5 RLC'`",
        ]
    return [
        *said,
        "",
        "Then:",
        f"  export SLUICE_KEYSTORE={keystore} SLUICE_KEYSTORE_PASSWORD_FILE={password_file}",
        "  sluice worker doctor",
        "  sluice worker run",
    ]
