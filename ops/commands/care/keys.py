"""`sluice keys …`: the keys that the scheduler made itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from config.settings import settings
from ops.admin import screen
from ops.admin.screen import DryRun, Json


class Kind(StrEnum):
    """What to replace."""

    TOKENS = "tokens"
    ADMIN = "admin"


def register(app: typer.Typer) -> None:
    """Add `sluice keys …`."""
    group = typer.Typer(no_args_is_help=True, help="Keys that the scheduler made: of machines' tokens, the operator's.")
    group.command("show", epilog="Examples: `sluice keys show`, `sluice keys show --json`")(_show)
    group.command(
        "rotate",
        epilog="Examples: `sluice keys rotate tokens`, `sluice keys rotate tokens admin --dry-run`,"
        " `sluice keys rotate tokens --at-once --json`",
    )(_rotate)
    app.add_typer(group, name="keys")


def _show(as_json: Json = False) -> None:
    """Which keys there are, since when, and until when; never the keys themselves. For the scheduler's machine."""
    from ops.admin import keys  # noqa: PLC0415

    now, found = screen.clock(), keys.show(settings())
    rows = [
        (
            key.kind,
            key.name,
            "–" if not key.made_at else screen.age(now - key.made_at),
            key.state if key.until is None or key.until < now else f"{key.state} {screen.age(key.until - now)} more",
        )
        for key in found
    ]
    table = screen.table(("key", "name", "age", "state"), rows, empty="No key was made yet.")
    screen.show([asdict(key) for key in found], table, as_json=as_json)


def _rotate(
    what: Annotated[list[Kind], typer.Argument(help="tokens: what signs machines' tokens. admin: your own token.")],
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Drop the former keys of tokens now, if one has leaked.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Replace keys, and say what becomes invalid and when. Running processes take the new ones; nothing is restarted.

    Run it on the scheduler's machine, with its settings. The former key of machines' tokens verifies for two hours
    more, so that no machine notices; the former operator's token is refused at once. Passwords of RabbitMQ's users that
    Sluice made need no command: a machine's is new at each sign-in, every hour. Exit code 2 if there is no such key
    here, as with another SLUICE_HOME than the scheduler's, or if it is in the environment: it is replaced there.
    """
    from ops.admin import keys  # noqa: PLC0415

    kinds = [keys.KINDS[kind] for kind in dict.fromkeys(what)]
    # First as a dry run: what cannot be replaced is refused before anything else is.
    done = [rotate(settings(), at_once=at_once, dry_run=True) for rotate in kinds]
    if not dry_run:
        done = [rotate(settings(), at_once=at_once, dry_run=False) for rotate in kinds]
    if as_json:
        print(json.dumps([asdict(one) for one in done], indent=1))
        return
    for one in done:
        print(one.says)
        for line in one.becomes_invalid:
            print(f"  {'would become' if dry_run else 'becomes'} invalid: {line}")
