"""`sluice task …`: which tasks there are, where each stands, and what happened to it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import Json, Limit, age

COLUMNS = ("task", "stage", "trust", "age", "workers", "waits for")
#: As `pipeline.domain.records.TaskStage` has them, which takes long to import.
_STAGES = (
    "RECEIVED, INITIALIZED, RUNNING, CONSENSUS_REACHED, AT_LEAST_ONE_REVEALED, RESULT_UPLOADED, FINALIZING, COMPLETED,"
    " FAILED"
)


def register(app: typer.Typer) -> None:
    """Add `sluice task …`."""
    group = typer.Typer(no_args_is_help=True, help="Tasks: list them, follow one.")
    group.command(
        "ls", epilog="Examples: `sluice task ls`, `sluice task ls --stage RUNNING --json`, `sluice task ls --deal 0x…`"
    )(_ls)
    group.command("show", epilog="Examples: `sluice task show 0x…`, `sluice task show 0x… --json`")(_show)
    app.add_typer(group, name="task")


def _ls(
    stage: Annotated[list[str] | None, typer.Option("--stage", help=f"Only this of {_STAGES}. Repeatable.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also tasks that are over.")] = False,
    deal: Annotated[str | None, typer.Option("--deal", help="Only tasks of this deal, over or not.")] = None,
    worker: Annotated[
        str | None, typer.Option("--worker", help="Only tasks that this machine was given and that are not over.")
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="BLOCK:ID", help="The next page, as the last line names it.")
    ] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Tasks that are not over, those matched last first, each with what it waits for."""
    found = OperatorApi.open().get(
        "/tasks",
        stage=[item.upper() for item in stage or ()],
        all=every,
        deal=deal,
        worker=None if worker is None else worker.lower(),
        before=before,
        limit=limit,
    )
    last = found[-1] if len(found) == limit and deal is None and worker is None else None
    more = None if last is None else Text(f"… perhaps more: --before {last['matched_block']}:{last['task_id']}")
    chosen = every or stage or deal or worker or before
    empty = "There is no such task." if chosen else "No task is open; `sluice task ls --all` shows those that are over."
    screen.show(found, screen.stacked(lines(found, screen.clock(), empty=empty), more), as_json=as_json)


def _show(
    task_id: Annotated[str, typer.Argument(help="Id of the task, or its beginning.")], as_json: Json = False
) -> None:
    """A task from its match on: what happened in which block, who was given it, votes, causes, transactions."""
    api = OperatorApi.open()
    found = api.get(f"/tasks/{api.whole_id('task', task_id)}")
    screen.show(found, drawn(found), as_json=as_json)


def lines(found: Sequence[Mapping[str, Any]], now: float, *, empty: str) -> RenderableType:
    """Tasks as a table. `now`: Unix seconds; `empty`: what to say without any."""
    rows = [
        (
            item["task_id"],
            item["stage"],
            str(item["trust"]),
            age(now - item["matched_at"]),
            str(item["workers"]),
            item["why"] or "",
        )
        for item in found
    ]
    return screen.table(COLUMNS, rows, empty=empty)


def wrong(found: Sequence[Mapping[str, Any]]) -> RenderableType | None:
    """Votes with which machines lost their stake; nothing without any."""
    rows = [(item["wallet"], item["task_id"], str(item["block"]), item["tx"]) for item in found]
    if not rows:
        return None
    columns = ("wallet", "task", "block", "transaction")
    return screen.stacked(Text("\nwrong votes, each of which lost its stake"), screen.table(columns, rows, empty=""))


def drawn(found: Mapping[str, Any]) -> RenderableType:
    """A task on a screen: its time line, replicates and transactions."""
    matched, at = found["matched_block"], found["matched_at"]
    facts = {
        "task": found["task_id"],
        "deal": f"{found['deal_id']}, task {found['index']}",
        "stage": found["stage"],
        "waits for": found["why"],
        "trust": found["trust"],
        "app": found["image"],
        "requester": found["requester"],
        "votes until": _date(found["contribution_deadline"]),
        "over at": _date(found["final_deadline"]),
        "result": found["result"],
    }
    moments = [
        (
            f"+{item['block'] - matched}" if item["block"] is not None else "",
            f"+{age(max(0.0, item['at'] - at))}",
            item["what"],
            item["wallet"] or "",
            item["tx"] or "",
        )
        for item in found["moments"]
    ]
    replicates = [
        (
            item["wallet"],
            item["name"] or "",
            item["state"],
            item["vote"] or "",
            item["cause"] or "",
            "stored" if item["result_stored"] else "",
        )
        for item in found["replicates"]
    ]
    submitted = [
        (item["method"], _date(item["at"]), f"{item['tries_failed']} failed" if item["tries_failed"] else "")
        for item in found["submitted"]
    ]
    return screen.stacked(
        screen.pairs(facts),
        Text(f"\nmatched in block {matched}"),
        screen.table(("block", "after", "what", "wallet", "transaction"), moments, empty=""),
        Text(""),
        screen.table(
            ("wallet", "machine", "state", "vote", "cause", "result"), replicates, empty="No machine was given it."
        ),
        # The lane may have been given more than is noted here; what a block has of it is above.
        Text("") if submitted else None,
        screen.table(("handed to the lane", "at", ""), submitted, empty="") if submitted else None,
    )


def _date(at: float) -> str:
    """A moment in UTC, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
