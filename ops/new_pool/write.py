"""Writing a planned pool's files, the settings last, and what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ops import wallet_files
from ops.new_pool import files
from ops.new_pool.files import Places
from ops.new_pool.plan import PoolPlan, WalletPlan
from protocol.types import Wallet


@dataclass(frozen=True, slots=True)
class Written:
    """What was written. `commands`: those that only root may run."""

    wallet: Wallet
    files: tuple[Path, ...]
    commands: tuple[str, ...]


def write(plan: PoolPlan) -> Written:
    """Write everything, the settings last: until they are there, the same command may be given again.

    Raises BadKeystore, BadInput.
    """
    places, commands = plan.places, list[str]()
    wallet, made = _write_wallet(places, plan.own)
    if places.compose:
        made += files.write_compose_secrets(places, plan.host)
        commands = files.give_to_containers(places)
    files.write_env(places, plan.env)
    return Written(wallet, (*made, places.env), tuple(commands))


def _write_wallet(places: Places, own: WalletPlan) -> tuple[Wallet, list[Path]]:
    """Write the missing files of the wallet; returns the wallet and the files made. Raises BadKeystore."""
    made = []
    if own.wallet is not None and places.compose:
        assert own.password is not None
        files.copy_wallet(places, own.keystore, own.password)
        return own.wallet, [places.keystore, places.password_file]
    if own.password is not None and files.keep_password(own.password_file, own.password):
        made.append(own.password_file)
    if own.wallet is not None:
        return own.wallet, made
    if not own.password_file.exists():
        made.append(own.password_file)
    return wallet_files.make_wallet(own.keystore, own.password_file), [own.keystore, *made]


def next_commands(places: Places, commands: Sequence[str]) -> list[str]:
    """What the operator types next. `commands`: what only root may do, first."""
    folder = [] if places.folder == Path() else [f"cd {shlex.quote(str(places.folder))}"]
    if places.compose:
        return [*commands, *folder, "docker compose up --detach", "docker compose exec scheduler sluice status"]
    return [*folder, "set -a; . ./.env; set +a", "sluice scheduler doctor", "sluice scheduler run"]
