"""`sluice quarantine …`: stored rows and deals that cannot be used, each with its reason, so that all others go on."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from config.settings import settings
from ops.admin import screen
from ops.admin.screen import DryRun
from pipeline.store.client import Store, answering
from protocol.errors import NotFound

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]

#: Rows listed at once.
MOST = 1000
_ACCEPT_EXAMPLES = "Examples: `sluice quarantine accept --key 0x…`, `sluice quarantine accept --key 0x… --undo`"


def register(app: typer.Typer) -> None:
    """Add `sluice quarantine …`."""
    group = typer.Typer(no_args_is_help=True, help="Rows that this release cannot use: see why, have them read again.")
    group.command("ls", epilog="Examples: `sluice quarantine ls`, `sluice quarantine ls --json`")(answering()(_ls))
    group.command(
        "retry", epilog="Examples: `sluice quarantine retry`, `sluice quarantine retry --collection deals --key 0x…`"
    )(answering()(_retry))
    group.command("accept", epilog=_ACCEPT_EXAMPLES)(answering()(_accept))
    app.add_typer(group, name="quarantine")


def _ls(as_json: Json = False) -> None:
    """Each row with its collection, its reason and when it is read again. Exit code 1 if there are any but accepted
    ones.
    """
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
                f"accepted: {entry.why}" if entry.accepted else entry.why,
            )
            for entry in entries
        ]
        columns = ("collection", "row", "since", "read again", "times", "why")
        screen.console().print(screen.table(columns, rows, empty="Nothing is quarantined."))
    if not all(entry.accepted for entry in entries):
        raise typer.Exit(1)


def _retry(
    collection: Annotated[str | None, typer.Option("--collection", help="Only rows of this collection.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only this row.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have rows read again by the next sweep, a few seconds from now, instead of at the time that `ls` shows."""
    rows = Store.open(settings()).quarantine
    count = rows.count(collection, key) if dry_run else rows.make_due(collection, key)
    _require(count, collection, key)
    if as_json:
        print(json.dumps({"rows": count, "dry_run": dry_run}))
        return
    would = "would" if dry_run else "will"
    print(f"Rows that {would} be read again within seconds: {count}; `sluice quarantine ls` shows what stays.")


def _accept(
    key: Annotated[str, typer.Option("--key", help="The row, as `ls` shows it.")],
    collection: Annotated[str | None, typer.Option("--collection", help="The collection that it is in.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Count it again.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Count a row no longer in `sluice status` and alerts: nothing can be done about it, as with a deal that cannot be
    decoded. It is still read again, and counted again if its reason changes.
    """
    rows = Store.open(settings()).quarantine
    count = rows.count(collection, key) if dry_run else rows.accept(collection, key, accepted=not undo)
    _require(count, collection, key)
    if as_json:
        print(json.dumps({"rows": count, "accepted": not undo, "dry_run": dry_run}))
        return
    done = "counted again" if undo else "accepted"
    print(f"It would be {done}: {key}." if dry_run else f"{done.capitalize()}: {key}.")


def _require(count: int, *words: str | None) -> None:
    """Raise NotFound if the command names a row and none fits."""
    given = [word for word in words if word]
    if given and not count:
        raise NotFound(what=f"row in quarantine: {' '.join(given)}")
