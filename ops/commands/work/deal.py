"""`sluice deal …`: which deals there are, and how each goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import Json, Limit
from ops.commands.work import task


def register(app: typer.Typer) -> None:
    """Add `sluice deal …`."""
    group = typer.Typer(no_args_is_help=True, help="Deals: list them, look into one.")
    group.command("ls", epilog="Examples: `sluice deal ls`, `sluice deal ls --limit 10 --json`")(_ls)
    group.command("show", epilog="Examples: `sluice deal show 0x…`, `sluice deal show 0x… --first 100`")(_show)
    app.add_typer(group, name="deal")


def _ls(
    before: Annotated[
        str | None, typer.Option("--before", metavar="BLOCK:ID", help="The next page, as the last line names it.")
    ] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Deals, those matched last first, each with how many of its tasks are not over."""
    found = OperatorApi.open().get("/deals", before=before, limit=limit)
    rows = [
        (
            item["deal_id"],
            str(item["block"]),
            item["state"],
            _or_dash(item["tasks"]),
            str(item["open_tasks"]),
            _or_dash(item["trust"]),
            item["image"] or "",
            item["why"] or "",
        )
        for item in found
    ]
    columns = ("deal", "block", "state", "tasks", "open", "trust", "app", "why")
    last = found[-1] if len(found) == limit else None
    more = None if last is None else Text(f"… perhaps more: --before {last['block']}:{last['deal_id']}")
    drawn = screen.table(columns, rows, empty="No deal was matched on this workerpool yet.")
    screen.show(found, screen.stacked(drawn, more), as_json=as_json)


def _show(
    deal_id: Annotated[str, typer.Argument(help="Id of the deal, or its beginning.")],
    first: Annotated[int, typer.Option("--first", min=0, help="Index of the first task to show.")] = 0,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """The terms of a deal, and where its tasks stand."""
    api = OperatorApi.open()
    found = api.get(f"/deals/{api.whole_id('deal', deal_id)}", first=first, limit=limit)
    screen.show(found, _drawn(found), as_json=as_json)


def _drawn(found: Mapping[str, Any]) -> RenderableType:
    """A deal and its tasks as `sluice deal` prints them."""
    stake = found["worker_stake_nrlc"]
    facts = {
        "deal": found["deal_id"],
        "state": found["state"],
        "why": found["why"],
        "matched in block": found["block"],
        "app": None if found["app"] is None else f"{found['image']} ({found['app']})",
        "dataset": found["dataset"],
        "arguments": found["params"],
        "requester": found["requester"],
        "beneficiary": found["beneficiary"],
        "trust": found["trust"],
        "a worker stakes": None if stake is None else f"{stake} nRLC",
        "tasks": None if found["tasks"] is None else f"{found['tasks']}, {found['open_tasks']} not over",
    }
    tasks = task.lines(found["shown"], screen.clock(), empty="None of its tasks is shown.")
    return screen.stacked(screen.pairs(facts), Text(""), tasks, task.wrong(found["wrong_votes"]))


def _or_dash(value: object) -> str:
    """A value as text, a dash for none."""
    return "–" if value is None else str(value)
