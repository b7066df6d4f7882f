"""`sluice quarantine …`: stored rows and deals that cannot be used, each with its reason, so that all others go on."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from config.settings import settings
from ops.admin import screen
from pipeline.store.client import Store, answering
from protocol.errors import NotFound

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]

#: Rows listed at once.
MOST = 1000


def register(app: typer.Typer) -> None:
    """Add `sluice quarantine …`."""
    group = typer.Typer(no_args_is_help=True, help="Rows that this release cannot use: see why, have them read again.")
    group.command("ls", epilog="Examples: `sluice quarantine ls`, `sluice quarantine ls --json`")(answering()(_ls))
    group.command(
        "retry", epilog="Examples: `sluice quarantine retry`, `sluice quarantine retry --collection deals --key 0x…`"
    )(answering()(_retry))
    app.add_typer(group, name="quarantine")


def _ls(as_json: Json = False) -> None:
    """Each row with its collection, its reason and when it is read again. Exit code 1 if there are any."""
    entries = Store.open(settings()).quarantine.entries(MOST)
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], default=str))
    else:
        now = screen.clock()
        rows = [
            (
                entry.collection,
                str(entry.key),
                f"{screen.age(now - entry.since)} ago",
                f"in {screen.age(entry.until - now)}",
                str(entry.times),
                entry.why,
            )
            for entry in entries
        ]
        columns = ("collection", "row", "since", "read again", "times", "why")
        screen.console().print(screen.table(columns, rows, empty="Nothing is quarantined."))
    if entries:
        raise typer.Exit(1)


def _retry(
    collection: Annotated[str | None, typer.Option("--collection", help="Only rows of this collection.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only this row.")] = None,
    as_json: Json = False,
) -> None:
    """Have rows read again by the next sweep, a few seconds from now, instead of at the time that `ls` shows."""
    count = Store.open(settings()).quarantine.make_due(collection, key)
    if not count and (collection or key):
        raise NotFound(what=f"row in quarantine: {' '.join(word for word in (collection, key) if word)}")
    if as_json:
        print(json.dumps({"rows": count}))
    else:
        print(f"Rows that will be read again within seconds: {count}; `sluice quarantine ls` shows what stays.")
