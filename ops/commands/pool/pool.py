"""`sluice pool …`: whether the pool begins work; stop that for a while, and go on."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import DryRun, Json
from protocol.counts import count

#: Checks in a row that must find no task at work: a process that was at work before the pause may still assign one.
QUIET_LOOKS = 2
#: Seconds after the pause in which no check counts, for the same reason.
QUIET_SECONDS = 2.0


def register(app: typer.Typer) -> None:
    """Add `sluice pool …`."""
    group = typer.Typer(
        no_args_is_help=True, help="The pool as a whole: see whether it works, pause, drain, resume it."
    )
    group.command("status", epilog="Examples: `sluice pool status`, `sluice pool status --json`")(_status)
    group.command("pause", epilog="Examples: `sluice pool pause --why 'new disk'`, `sluice pool pause --dry-run`")(
        _pause
    )
    group.command("resume", epilog="Examples: `sluice pool resume`, `sluice pool resume --json`")(_resume)
    group.command("drain", epilog="Examples: `sluice pool drain`, `sluice pool drain --wait 600`")(_drain)
    app.add_typer(group, name="pool")


Why = Annotated[str, typer.Option("--why", help="The reason, for whoever looks later.")]


def _status(as_json: Json = False) -> None:
    """Say whether the pool begins new tasks, and if not, since when and why: paused by you, or holding by itself.

    Exit code 1 if it begins none.
    """
    answer = OperatorApi.open().get("/pool")
    says = [
        _since("Paused", answer["paused"], "Run `sluice pool resume` when it may go on."),
        _since("Holding", answer["holding"], "It goes on by itself."),
    ]
    bad = ", ".join(answer["not_well"])
    takes = (
        f"The pool takes work, but not all of it is well: {bad} (`sluice status`)." if bad else "The pool takes work."
    )
    screen.show(answer, "\n".join(filter(None, says)) or takes, as_json=as_json)
    if any(says):
        raise typer.Exit(1)


def _since(what: str, stop: dict[str, Any] | None, fix: str) -> str:
    """A line about a pause or a hold; empty if there is none."""
    if stop is None:
        return ""
    why = f": {screen.printable(stop['why'])}" if stop["why"] else ""
    return f"{what} since {datetime.fromtimestamp(stop['since'], UTC):%Y-%m-%d %H:%M:%S} UTC{why}. {fix}"


def _pause(why: Why = "", dry_run: DryRun = False, as_json: Json = False) -> None:
    """Begin no new task: those that a machine was given are finished, all others wait.

    The deadlines of waiting tasks go on, and the contracts take the pool's stake for a deal that it lets expire. What
    the pool offers by `sluice orders` is withdrawn; cancel orders that you signed by hand, so that no deal comes.
    """
    answer = OperatorApi.open().post("/pool/pause", {"why": why}, dry_run=dry_run)
    screen.show(answer, screen.changed(answer), as_json=as_json)


def _resume(dry_run: DryRun = False, as_json: Json = False) -> None:
    """End a pause; what waited is begun within seconds."""
    answer = OperatorApi.open().post("/pool/resume", dry_run=dry_run)
    screen.show(answer, screen.changed(answer), as_json=as_json)


def _drain(
    why: Why = "",
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait at most; 0: as long as it takes.")] = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Pause, and wait until everything that was begun is finished: then nothing is lost by stopping the scheduler.

    Exit code 1 if tasks are still at work when --wait is over. Ctrl-C stops the waiting, not the pause.
    """
    api, began = OperatorApi.open(), time.monotonic()
    answer = api.post("/pool/pause", {"why": why}, dry_run=dry_run)
    if dry_run:
        screen.show(answer, screen.changed(answer), as_json=as_json)
        return
    console = Console(stderr=True)
    with suppress(KeyboardInterrupt), console.status("Waiting for the tasks that were begun …") as line:
        quiet = 0
        for found in api.follow("/live"):
            work = found["work"]
            quiet = quiet + 1 if work is not None and not work["begun_tasks"] else 0
            # An event of the stream may be some seconds old: of before the pause, if others follow it too.
            if quiet >= QUIET_LOOKS and time.monotonic() - began >= QUIET_SECONDS:
                work = api.get("/status")["work"]
                if work is None or work["begun_tasks"]:
                    quiet = 0
                    continue
                answer = {"drained": True, "begun": 0, "waiting": work["open_tasks"]}
                left = count(work["open_tasks"], "task")
                says = f"Nothing is at work; {left} wait for `sluice pool resume`."
                screen.show(answer, says, as_json=as_json)
                return
            if wait and time.monotonic() - began >= wait:
                break
            at_work = count(work["begun_tasks"], "task") if work else ""
            line.update(f"At work: {at_work} …" if work else "MongoDB does not answer …")
    says = "Tasks are still at work. The pool stays paused: `sluice pool drain` waits again, `resume` ends the pause."
    screen.show({"drained": False}, says, as_json=as_json)
    raise typer.Exit(1)
