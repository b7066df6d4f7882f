"""`sluice worker run | doctor | status`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from config.logging import configure
from config.settings import settings

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


def _run() -> None:
    """Run this machine for the pool at `SLUICE_API_URL` until SIGTERM or Ctrl-C.

    Needs a wallet with gas and stake (`SLUICE_KEYSTORE` …) and a Docker engine (`SLUICE_DOCKER_HOST`). What it does
    survives restarts: running containers are found again, and what was voted for is revealed.
    """
    now = settings()
    configure(now, process="worker")
    # Imported here: help and errors of settings should come at once.
    from workers import machine  # noqa: PLC0415

    machine.run(now)


def _doctor(as_json: Json = False) -> None:
    """Say for each part this machine needs whether it is there. Exit code 1 if one is not."""
    from workers.doctor import examine  # noqa: PLC0415

    findings = list(examine(settings()))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        table = Table(box=None, show_header=False)
        for finding in findings:
            table.add_row("[green]ok[/]" if finding.ok else "[red]bad[/]", finding.part, finding.says)
        Console(soft_wrap=True).print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _status(as_json: Json = False) -> None:
    """List the tasks this machine holds, from its journal; it need not be running."""
    from workers.status import held  # noqa: PLC0415

    rows = held(settings())
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = Table("task", "mode", "step", "for", "result", "cause", box=None)
    for row in rows:
        table.add_row(row.task_id, row.mode, row.stage, f"{row.seconds:.0f} s", row.digest or "", row.cause or "")
    Console(soft_wrap=True).print(table if rows else "This machine holds no task.")
