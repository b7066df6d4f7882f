"""`sluice worker run | doctor | status`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from config.logging import configure
from config.settings import settings

#: Columns of a table whose cells must not be cut.
WIDE = 1000
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


def register(app: typer.Typer) -> None:
    """Add `sluice worker …`."""
    group = typer.Typer(no_args_is_help=True, help="A worker machine: runs apps in Docker for a pool.")
    group.command("run", epilog="Example: `SLUICE_API_URL=https://pool.example SLUICE_KEYSTORE=wallet.json … run`")(
        _run
    )
    group.command("doctor", epilog="Examples: `sluice worker doctor`, `sluice worker doctor --json`")(_doctor)
    group.command("status", epilog="Examples: `sluice worker status`, `sluice worker status --json`")(_status)
    app.add_typer(group, name="worker")


TakeOver = Annotated[
    bool,
    typer.Option("--take-over", help="Cut off another machine that works with this wallet, e.g. one that is gone."),
]


def _run(take_over: TakeOver = False) -> None:
    """Run this machine for the pool at `SLUICE_API_URL` until SIGTERM or Ctrl-C.

    Needs a wallet with gas and stake (`SLUICE_KEYSTORE` …) and a Docker engine (`SLUICE_DOCKER_HOST`). What it does
    survives restarts: running containers are found again, and what was voted for is revealed.
    """
    now = settings()
    configure(now, process="worker")
    structlog.contextvars.bind_contextvars(machine=now.worker_name)
    # Imported here: help and errors of settings should come at once.
    from workers import machine  # noqa: PLC0415

    machine.run(now, take_over=take_over)


def _doctor(as_json: Json = False) -> None:
    """Say for each part whether this machine would be given work, and if not, what to do. Exit code 1 if one is bad."""
    from workers.fitness.doctor import examine  # noqa: PLC0415

    findings = list(examine(settings()))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for finding in findings:
            verdict = "[green]ok [/]" if finding.ok else "[red]bad[/]"
            console.print(f"{verdict}  {finding.part:<8}  {escape(finding.says)}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _status(as_json: Json = False) -> None:
    """How this machine stands, and the tasks it holds; it need not be running."""
    from workers.fitness.status import lines, status  # noqa: PLC0415

    found = status(settings())
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    for line in lines(found):
        print(line)
    table = Table("task", "mode", "step", "for", "result", "cause", box=None)
    for row in found.tasks:
        table.add_row(row.task_id, row.mode, row.stage, f"{row.seconds:.0f} s", row.digest or "", row.cause or "")
    # Wide: ids are there to be copied whole, whatever the terminal's width.
    Console(soft_wrap=True, width=WIDE).print(table if found.tasks else "This machine holds no task.")
