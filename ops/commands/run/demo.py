"""`sluice demo` and `sluice demo --stop`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Annotated

import typer
from rich.console import Console

from config.logging import configure
from config.settings import settings
from ops.commands.run.stack import Board
from ops.demo import run as demo
from ops.demo import screen
from ops.pool import local
from ops.stack.stack import outer_home


def register(app: typer.Typer) -> None:
    """Add `sluice demo`."""
    app.command("demo", epilog="Examples: `sluice demo`, `sluice demo --enclave`, `sluice demo --json --keep`")(_demo)


def _demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave pool and stack running, to look around.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Only stop a pool that --keep left running.")] = False,
    enclave: Annotated[
        bool, typer.Option("--enclave", help="One more deal: a confidential one, in an enclave that is simulated.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")] = False,
) -> None:
    """Real deals on the real contracts, turned into containers, votes and money, on this machine.

    Starts the local stack, a scheduler and four workers, buys four deals (one of them with a lying worker), and tells
    the story of each. Exit code 0 only if every task is COMPLETED on chain.
    """
    now = settings()
    now = now.model_copy(update={"home": outer_home(now.home)})
    if stop:
        stopped = local.stop_all(demo.home(now))
        print(json.dumps({"stopped": stopped}) if as_json else f"Stopped: {', '.join(stopped) or 'nothing ran'}.")
        return
    if "log_level" not in now.model_fields_set:
        now = now.model_copy(update={"log_level": "warning"})
    configure(now.model_copy(update={"log_format": "text"}), process="demo")
    console = Console(stderr=as_json)
    with Board(quiet=False) as board:
        outcome = demo.run(now, console, board.show, keep=keep, enclave=enclave)
    screen.print_stories(console, outcome.stories, outcome.names)
    screen.print_endpoints(console, outcome.endpoints, running=keep)
    if as_json:
        print(json.dumps(outcome.told, indent=1))
    else:
        verdict = "All tasks are COMPLETED on chain" if outcome.completed else "Not all tasks are COMPLETED"
        console.print(f"{verdict}, after {outcome.told['seconds']} s.")
    sluice = _typed_command()
    if keep:
        beside = demo.home(now) / "scheduler" / local.SETTINGS
        page = f"{outcome.endpoints['operations']}/page/"
        console.print(f"The pool on a web page: {page}", highlight=False, soft_wrap=True)
        told = f"`. {beside}`, then `{sluice} status`, `{sluice} task ls --all`, `{sluice} worker ls` …"
        console.print(told, highlight=False, soft_wrap=True)
        console.print(f"`{sluice} demo --stop` ends the pool.", highlight=False)
    console.print(f"The servers stay up for the next run; `{sluice} stack down` stops them.", highlight=False)
    if not outcome.completed:
        raise typer.Exit(1)


def _typed_command() -> str:
    """The name under which the user's shell finds this program: `make demo` has `.venv/bin` not on PATH."""
    return "sluice" if shutil.which("sluice") else os.path.relpath(sys.argv[0])
