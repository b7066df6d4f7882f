"""`sluice quarantine …`: stored rows and deals that cannot be used, each with its reason, so that all others go on."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import DryRun, Json, Limit, age

_LS_EXAMPLES = "Examples: `sluice quarantine ls`, `sluice quarantine ls --json`"
_RETRY_EXAMPLES = "Examples: `sluice quarantine retry`, `sluice quarantine retry --collection deals --key 0x…`"
_ACCEPT_EXAMPLES = "Examples: `sluice quarantine accept --key 0x…`, `sluice quarantine accept --key 0x… --undo`"


def register(app: typer.Typer) -> None:
    """Add `sluice quarantine …`."""
    group = typer.Typer(no_args_is_help=True, help="Rows that this release cannot use: see why, have them read again.")
    group.command("ls", epilog=_LS_EXAMPLES)(_ls)
    group.command("retry", epilog=_RETRY_EXAMPLES)(_retry)
    group.command("accept", epilog=_ACCEPT_EXAMPLES)(_accept)
    app.add_typer(group, name="quarantine")


def _ls(limit: Limit = 1000, as_json: Json = False) -> None:
    """Each row with its collection, its reason and when it is read again. Exit code 1 if there are any but accepted
    ones.
    """
    found = OperatorApi.open().get("/quarantine", limit=limit)
    now = screen.clock()
    rows = [
        (
            item["collection"],
            item["key"],
            f"{age(now - item['since'])} ago",
            f"in {age(item['until'] - now)}",
            str(item["times"]),
            f"accepted: {item['why']}" if item["accepted"] else item["why"],
        )
        for item in found
    ]
    columns = ("collection", "row", "since", "read again", "times", "why")
    screen.show(found, screen.table(columns, rows, empty="Nothing is quarantined."), as_json=as_json)
    if not all(item["accepted"] for item in found):
        raise typer.Exit(1)


def _retry(
    collection: Annotated[str | None, typer.Option("--collection", help="Only rows of this collection.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only this row.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have rows read again by the next sweep, a few seconds from now, instead of at the time that `ls` shows."""
    answer = OperatorApi.open().post("/quarantine/retry", collection=collection, key=key, dry_run=dry_run)
    would = "would" if dry_run else "will"
    says = f"Rows that {would} be read again within seconds: {answer['rows']}; `sluice quarantine ls` shows what stays."
    screen.show(answer, Text(says), as_json=as_json)


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
    answer = OperatorApi.open().post("/quarantine/accept", key=key, collection=collection, undo=undo, dry_run=dry_run)
    done = "counted again" if undo else "accepted"
    says = f"It would be {done}: {key}." if dry_run else f"{done.capitalize()}: {key}."
    screen.show(answer, Text(says), as_json=as_json)
