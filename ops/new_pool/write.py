"""Writing a planned pool's files, the settings last, and what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.new_pool import files
from ops.new_pool.files import Places
from ops.new_pool.plan import PoolPlan
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
    places, made, commands = plan.places, [], list[str]()
    if plan.wallet is None:
        wallet = files.make_wallet(places)
        made += [places.keystore, places.password_file]
    else:
        assert plan.keystore is not None
        assert plan.password is not None
        wallet = plan.wallet
        if places.compose:
            files.copy_wallet(places, plan.keystore, plan.password)
            made += [places.keystore, places.password_file]
        elif not Path(plan.env["SLUICE_KEYSTORE_PASSWORD_FILE"]).exists():
            files.keep_password(Path(plan.env["SLUICE_KEYSTORE_PASSWORD_FILE"]), plan.password)
            made.append(Path(plan.env["SLUICE_KEYSTORE_PASSWORD_FILE"]))
    if places.compose:
        made += files.write_compose_secrets(places, plan.host)
        commands = files.give_to_containers(places)
    files.write_env(places, plan.env)
    return Written(wallet, (*made, places.env), tuple(commands))


def next_commands(places: Places, commands: Sequence[str]) -> list[str]:
    """What the operator types next. `commands`: what only root may do, first."""
    folder = [] if places.folder == Path() else [f"cd {shlex.quote(str(places.folder))}"]
    if places.compose:
        return [*commands, *folder, "docker compose up --detach", "docker compose exec scheduler sluice status"]
    return [*folder, "set -a; . ./.env; set +a", "sluice scheduler doctor", "sluice scheduler run"]
