"""`sluice worker init`: a new wallet for a machine, and what it needs before it may work."""

from __future__ import annotations

import json
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from chain.contracts.hub import Hub
from chain.rpc.pool import connect
from config.settings import Settings
from config.whole_files import new_file
from protocol.amounts import ether, rlc
from protocol.errors import BadKeystore, SluiceError
from protocol.ethereum.library import load_eth_account
from protocol.ethereum.signing import Key
from protocol.gas import gas_for_task
from protocol.types import Contract, Wallet
from workers.fitness.rules import TASKS_OF_GAS
from workers.pool.api import PoolApi
from workers.pool.settings import complete_settings

#: Where a new wallet goes unless the settings name another place.
KEYSTORE, PASSWORD_FILE = Path("wallet.json"), Path("wallet.password")
#: Random bytes of a new password: as hard to guess as the key that it protects.
_PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Needs:
    """What a pool's machine should hold. `stake_nrlc`: None if the pool has sold nothing yet."""

    workerpool: str
    chain_id: int
    gas_wei: int
    stake_nrlc: int | None


def make_wallet(keystore: Path, password_file: Path) -> Wallet:
    """Write a V3 keystore of a new key, mode 600, and its password unless that file exists. Never overwrites.

    Raises BadKeystore where there is a wallet already, or where a file cannot be written.
    """
    if keystore.exists():
        raise BadKeystore(
            path=keystore,
            why="it exists, and a wallet is never overwritten",
            fix="Use it, or name another file with --keystore.",
        )
    password = _password(password_file)
    secret = secrets.token_bytes(32)
    document = load_eth_account().Account.encrypt(secret, password)
    _write_new(keystore, json.dumps(document))
    return Key(secret).wallet


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


def _password(path: Path) -> str:
    """The password in the file, or a new one in a new file."""
    if not path.exists():
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        _write_new(path, password + "\n")
        return password
    try:
        password, mode = path.read_text().rstrip("\r\n"), stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise BadKeystore(path=path, why="the password cannot be read", fix="Check its permissions.") from error
    if not password:
        raise BadKeystore(path=path, why="the password is empty", fix="Write one, or remove the file.")
    if mode & 0o077:
        raise BadKeystore(path=path, why=f"others may read it (mode {mode:o})", fix=f"Run: chmod 600 {path}")
    return password


def _write_new(path: Path, text: str) -> None:
    """Write a file that is new, whole, and its owner's alone from the first moment on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        why = error.strerror or str(error)
        raise BadKeystore(path=path, why=f"it cannot be written: {why}", fix="Name another place.") from error
