"""`sluice dead …`: messages that were delivered too often without success."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import DryRun, Json, age
from protocol.counts import count
from protocol.errors import BadInput, NotFound

#: Messages that are looked through for one id.
MOST = 10_000
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="Ids of messages, from `sluice dead ls`.")]
All = Annotated[bool, typer.Option("--all", help="Every message.")]


def register(app: typer.Typer) -> None:
    """Add `sluice dead …`."""
    group = typer.Typer(
        no_args_is_help=True, help="Dead letters: messages that were delivered too often. Rows: `sluice quarantine`."
    )
    group.command("ls", epilog="Examples: `sluice dead ls`, `sluice dead ls --json`. Exit code 1 if there are any.")(
        _ls
    )
    group.command("show", epilog="Example: `sluice dead show 2f1c…`")(_show)
    group.command("retry", epilog="Examples: `sluice dead retry 2f1c…`, `sluice dead retry --all --dry-run`")(_retry)
    group.command("drop", epilog="Examples: `sluice dead drop 2f1c…`, `sluice dead drop --all`")(_drop)
    app.add_typer(group, name="dead")


def _ls(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST, help="Lines at most.")] = 1000,
    as_json: Json = False,
) -> None:
    """The messages that failed too often, the oldest first, each with its task and the queue where it failed.

    Exit code 1 if there are any.
    """
    found = OperatorApi.open().get("/dead", limit=limit)
    now = screen.clock()
    rows = [
        (
            item["id"],
            item["task"],
            item["queue"],
            item["reason"],
            age(None if item["died_at"] is None else now - item["died_at"]),
            item["arguments"][:100],
        )
        for item in found
    ]
    columns = ("message", "task", "queue", "reason", "since", "arguments")
    screen.show(found, screen.table(columns, rows, empty="There is no dead letter."), as_json=as_json)
    if found:
        raise typer.Exit(1)


def _show(message: Annotated[str, typer.Argument(metavar="ID", help="Its id.")], as_json: Json = False) -> None:
    """One message, with its arguments."""
    found = next((item for item in OperatorApi.open().get("/dead", limit=MOST) if item["id"] == message), None)
    if found is None:
        raise NotFound(what=f"message {message} in the queue `dead`")
    screen.show(found, screen.pairs(found), as_json=as_json)


def _retry(ids: Ids = None, every: All = False, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Have messages delivered again, each to the queue that it came from."""
    _move("retry", ids, every=every, dry_run=dry_run, as_json=as_json)


def _drop(ids: Ids = None, every: All = False, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Remove messages. No work is lost: the periodic sweep finds it in the database."""
    _move("drop", ids, every=every, dry_run=dry_run, as_json=as_json)


def _move(action: str, ids: list[str] | None, *, every: bool, dry_run: bool, as_json: bool) -> None:
    """Have the API retry or drop (`action`) these messages, or all of them (`every`), and print what it did."""
    if bool(ids) == every:
        raise BadInput(what="Give ids of messages, or --all.")
    answer = OperatorApi.open().post(f"/dead/{action}", dry_run=dry_run, id=ids or None)
    done = "delivered again" if action == "retry" else "removed"
    would = "would be " if dry_run else ""
    screen.show(answer, Text(f"{count(len(answer['messages']), 'message')} {would}{done}."), as_json=as_json)
