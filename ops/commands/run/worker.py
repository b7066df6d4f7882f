"""`sluice worker …`: one worker machine, from its wallet to its earnings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from config.logging import configure
from config.processes.lean_imports import lean_imports
from config.settings import settings
from ops.admin import worker_commands
from ops.admin.screen import DryRun, Json
from ops.admin.service_lines import JsonLines, write_json_lines
from ops.machine import fund_commands
from protocol.errors import BadSetting

if TYPE_CHECKING:
    from workers.fitness.status import Status

#: Columns of a table whose cells must not be cut.
WIDE = 1000


def register(app: typer.Typer) -> None:
    """Add `sluice worker …`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="This worker machine, which runs apps in Docker for a pool; and, for a pool's operator, its machines."
        " Who may sign in: `sluice enrol`.",
    )
    group.command(
        "run", epilog="Example: `SLUICE_API_URL=https://pool.example SLUICE_KEYSTORE=wallet.json sluice worker run`"
    )(_run)
    group.command("doctor", epilog="Examples: `sluice worker doctor`, `sluice worker doctor --json`")(_doctor)
    group.command("status", epilog="Examples: `sluice worker status`, `sluice worker status --watch`, `status --json`")(
        _status
    )
    for name, (command, examples) in {**_MORE, **fund_commands.COMMANDS, **worker_commands.COMMANDS}.items():
        group.command(name, epilog=examples)(command)
    app.add_typer(group, name="worker")


TakeOver = Annotated[
    bool,
    typer.Option("--take-over", help="Cut off another machine that works with this wallet, e.g. one that is gone."),
]


def _run(take_over: TakeOver = False, as_json: JsonLines = False) -> None:
    """Run this machine for the pool at `SLUICE_API_URL` until SIGTERM or Ctrl-C.

    Needs a wallet with gas and stake (`SLUICE_KEYSTORE` …) and a Docker engine (`SLUICE_DOCKER_HOST`). What it does
    survives restarts: running containers are found again, and what was voted for is revealed.
    """
    write_json_lines(as_json)
    now = settings()
    configure(now, process="worker")
    structlog.contextvars.bind_contextvars(machine=now.worker_name)
    # Imported here: help and errors of settings should come at once.
    with lean_imports():
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


def _status(
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", help="Seconds between two looks of --watch.", min=1)] = 5.0,
) -> None:
    """How this machine stands, what keeps it from work, and the tasks it holds; it need not be running."""
    from chain.keystore import load_key  # noqa: PLC0415
    from workers.fitness.status import status  # noqa: PLC0415

    now = settings()
    # A keystore takes a second to open, so it is opened once.
    key = load_key(now)
    with suppress(KeyboardInterrupt, BrokenPipeError):
        while True:
            found = status(now, key)
            if as_json:
                # One line for each reading of --watch.
                print(json.dumps(asdict(found), indent=None if watch else 1), flush=True)
            else:
                _show(found, clear=watch)
            if not watch:
                return
            time.sleep(every)


def _show(found: Status, *, clear: bool) -> None:
    """Print the machine in lines and its tasks in a table; `clear`: clear the terminal first."""
    from workers.fitness.status import lines  # noqa: PLC0415

    if clear:
        Console().clear()
    for line in lines(found):
        print(line)
    table = Table("task", "mode", "step", "for", "result", "cause", box=None)
    for row in found.tasks:
        table.add_row(row.task_id, row.mode, row.stage, f"{row.seconds:.0f} s", row.digest or "", Text(row.cause or ""))
    # Wide: ids are there to be copied whole, whatever the terminal's width.
    Console(soft_wrap=True, width=WIDE).print(table if found.tasks else "This machine holds no task.")
    if clear:
        print(time.strftime("%H:%M:%S"), flush=True)


def _init(
    keystore: Annotated[Path | None, typer.Option("--keystore", help="The new keystore file.")] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with its password; made if absent.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a wallet for this machine, and say what it needs: gas, stake, and how to give it both.

    Both files can be read by their owner only, and nothing is ever overwritten. Without options they are those of
    `SLUICE_KEYSTORE` and `SLUICE_KEYSTORE_PASSWORD_FILE`, else `wallet.json` and `wallet.password` here.
    """
    from ops import wallet_files  # noqa: PLC0415
    from ops.machine import setup  # noqa: PLC0415

    now = settings()
    place = keystore or now.keystore or wallet_files.KEYSTORE
    password = password_file or now.keystore_password_file or wallet_files.PASSWORD_FILE
    if dry_run:
        wallet_files.refuse_existing(place)
    wallet = None if dry_run else wallet_files.make_wallet(place, password)
    needs, why = setup.ask_needs(now)
    if as_json:
        made = {"wallet": wallet, "keystore": str(place), "password_file": str(password), "done": not dry_run}
        print(json.dumps({**made, "needs": None if needs is None else asdict(needs), "unknown": why}, indent=1))
        return
    if wallet is None:
        new = "" if password.exists() else f", its password to {password}"
        print(f"Would write a new wallet to {place}{new}. Nothing was written.")
        return
    for line in setup.advice(wallet, place, password, needs, why):
        print(line)


def _stop(
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait until it has ended.", min=0)] = 60.0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Stop this machine as SIGTERM does, wait for its end, and say what is left and until when it must be back."""
    from ops.machine import life  # noqa: PLC0415

    ended = life.would_end(settings()) if dry_run else life.stop(settings(), wait)
    print(life.as_json(ended) if as_json else ended.says)
    if not ended.stopped and not dry_run:
        raise typer.Exit(1)


def _drain(
    wallet: Annotated[
        str | None, typer.Argument(metavar="[WALLET]", help="For the pool's operator: a machine of the pool.")
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option("--deadline", help="Seconds after which what is not computed goes back to the pool.", min=0),
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Take tasks again.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take no new task, finish those that are here, then stop. Votes are always revealed, whatever the deadline.

    With a wallet, for the pool's operator: give that machine nothing new; it finishes what it has and stays signed in.
    """
    if wallet is not None:
        if cancel or deadline is not None:
            fix = "Without WALLET it is about this machine; `sluice worker undrain WALLET` takes it back."
            raise BadSetting(name="WALLET", why="it goes with no option but --dry-run and --json", fix=fix)
        worker_commands.change(wallet, "drain", dry_run=dry_run, as_json=as_json)
        return
    from ops.machine import life  # noqa: PLC0415

    if dry_run:
        found = life.would_end(settings(), drained=True)
        says = "It would take tasks again. Nothing was done." if cancel else found.says
        print(life.as_json(replace(found, says=says)) if as_json else says)
        return
    if cancel:
        life.cancel_drain(settings())
        print(json.dumps({"draining": False}) if as_json else "It takes tasks again.")
        return
    ended = life.drain(settings(), deadline)
    print(life.as_json(ended) if as_json else ended.says)


def _logs(
    task: Annotated[str, typer.Argument(help="Only lines with this task id, or any other text.")] = "",
    last: Annotated[int, typer.Option("--lines", "-n", help="Lines of the past.", min=1)] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each new line.")] = False,
    as_json: Json = False,
) -> None:
    """Print what this machine has logged (the last 64 MiB are kept)."""
    from ops.machine import life  # noqa: PLC0415
    from workers import log_file  # noqa: PLC0415

    with suppress(KeyboardInterrupt, BrokenPipeError):
        for line in log_file.lines(life.layout(settings()), last, task, follow=follow):
            print(line if as_json else log_file.for_people(line), flush=follow)


def _prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what no task needs: files and containers of tasks that are over, unused datasets. Safe while it runs."""
    from ops.machine import life  # noqa: PLC0415

    found = list(life.leftovers(settings(), dry_run=dry_run))
    if as_json:
        print(json.dumps([asdict(item) for item in found], indent=1))
    for item in [] if as_json else found:
        size = "" if item.size is None else f", {item.size} bytes"
        verb = "could not be removed" if item.trouble else "would be removed" if dry_run else "removed"
        print(f"{item.kind} {item.name}{size}: {verb}{': ' + item.trouble if item.trouble else ''}")
    if not found and not as_json:
        print("There is nothing that no task needs.")
    if any(item.trouble for item in found):
        raise typer.Exit(1)


_MORE: dict[str, tuple[Callable[..., None], str]] = {
    "init": (
        _init,
        "Examples: `sluice worker init --dry-run`, `sluice worker init --keystore /etc/sluice/wallet.json --json`",
    ),
    "stop": (_stop, "Examples: `sluice worker stop`, `sluice worker stop --wait 120 --json`"),
    "drain": (
        _drain,
        "Examples: `sluice worker drain`, `drain --deadline 600`, `drain --cancel`; `sluice worker drain 0x…`",
    ),
    "logs": (_logs, "Examples: `sluice worker logs --follow`, `sluice worker logs 0x12ab… --json`"),
    "prune": (_prune, "Examples: `sluice worker prune --dry-run`, `sluice worker prune --json`"),
}
