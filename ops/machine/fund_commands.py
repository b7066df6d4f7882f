"""`sluice worker deposit | withdraw | earnings`: the money of a machine's wallet."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chain.lane.transfer import Direction, sentence
from config.settings import settings
from ops.admin.asking import Yes, confirm, require_yes
from protocol.amounts import amount_of, ether, rlc
from protocol.counts import count

#: Columns of a table whose cells must not be cut.
WIDE = 1000
#: Seconds for which a transaction is waited for: some blocks of a slow chain.
WAIT_SECONDS = 300.0

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Amount = Annotated[str, typer.Argument(help="How much, like `12.5 RLC` or `100 nRLC`.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it may cost; do nothing.")]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait until a block has it.", min=1)]


def deposit(
    amount: Amount, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False, wait: Wait = WAIT_SECONDS
) -> None:
    """Deposit RLC of this machine's wallet in the hub, as stake. The machine may be running.

    After a crash, run the same command again: it waits for what is under way, and pays nothing twice.
    """
    _move("deposit", amount, yes, dry_run, as_json, wait)


def withdraw(
    amount: Amount, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False, wait: Wait = WAIT_SECONDS
) -> None:
    """Withdraw free RLC from the hub into this machine's wallet; never what votes lock or tasks under way will lock.

    After a crash, run the same command again: it waits for what is under way, and pays nothing twice.
    """
    _move("withdraw", amount, yes, dry_run, as_json, wait)


def _move(direction: Direction, text: str, yes: bool, dry_run: bool, as_json: bool, wait: float) -> None:
    """`sluice worker deposit` and `withdraw`: ask, send, wait, and print what became of it."""
    from ops.machine.funds import Moved, funds  # noqa: PLC0415

    amount = amount_of(text)
    require_yes(yes=yes, dry_run=dry_run, as_json=as_json)

    def tell(moved: Moved) -> None:
        """Print a finished deposit or withdrawal."""
        if as_json:
            account = {"free": moved.free, "locked": moved.locked}
            print(json.dumps({**asdict(moved.made), **account, "resumed": moved.resumed, "done": True}, indent=1))
            return
        done, way = rlc(moved.made.amount), "deposited" if moved.made.direction == "deposit" else "withdrawn"
        before = ", begun by an earlier command" if moved.resumed else ""
        print(f"{done} RLC {way} in block {moved.made.block}{before}: {moved.made.tx}")
        print(f"gas {ether(moved.made.paid)} of the native token; in the hub now {rlc(moved.free)} RLC free")

    with funds(settings()) as own:
        before = own.pending
        if before is not None and not dry_run:
            _say(as_json, f"A {before.direction} of {rlc(before.amount)} RLC was begun before; it comes first.")
            same = (before.direction, before.amount) == (direction, amount)
            own.carry_out(before, wait, resumed=True, told=tell if same or not as_json else _untold)
            if same:
                return
        transfer = own.plan(direction, amount)
        _say(as_json, f"{own.place}: {sentence(transfer)}")
        if dry_run:
            where = {"chain_id": own.lane.id.chain_id, "hub": own.hub.address}
            shown = {**where, **asdict(transfer), "pending": None if before is None else asdict(before), "done": False}
            print(json.dumps(shown, indent=1) if as_json else "Nothing was done.")
            return
        confirm("Send it?", yes=yes)
        own.carry_out(own.begin(transfer), wait, resumed=False, told=tell)


def _untold(_: object) -> None:
    """Print nothing, as an outcome of an earlier transfer with --json: only the command's own is printed."""


def _say(as_json: bool, words: str) -> None:
    """Print words for people on standard error, unless JSON is asked for."""
    if not as_json:
        Console(stderr=True, soft_wrap=True, highlight=False).print(words)


Since = Annotated[
    str, typer.Option("--since", help="How far back: `24h`, `7d`, `4w`, or a day or moment like `2026-11-01`.")
]


def earnings(since: Since = "30d", as_json: Json = False) -> None:
    """What each task that is over brought and cost: rewards by the chain's logs, gas by receipts, with their sums.

    The machine need not be running. Tasks of the last 1,000 hours are known.
    """
    from ops.machine.income import income  # noqa: PLC0415

    found = income(settings(), since)
    if as_json:
        print(json.dumps(asdict(found), indent=1))
        return
    table = Table("task", "ended", "step", "nRLC", "gas, wei", "cause", box=None)
    for row in found.tasks:
        brought = "unknown" if row.reward is None else str(row.reward)
        table.add_row(row.task_id, row.ended, row.stage, brought, str(row.gas), Text(row.cause or ""))
    Console(soft_wrap=True, width=WIDE).print(table if found.tasks else "No task has ended since then.")
    print(f"{count(len(found.tasks), 'task')} brought {found.reward} nRLC ({rlc(found.reward)} RLC)")
    print(f"gas since {found.since}: {found.gas} wei ({ether(found.gas)}), also of what has not ended")
    if found.unknown:
        print(f"{found.unknown} tasks whose end the node did not show are not in the sum")


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "deposit": (deposit, "Examples: `sluice worker deposit '12.5 RLC'`, `deposit '100 nRLC' --yes --json`"),
    "withdraw": (withdraw, "Examples: `sluice worker withdraw '3 RLC'`, `withdraw '3 RLC' --dry-run`"),
    "earnings": (earnings, "Examples: `sluice worker earnings`, `sluice worker earnings --since 7d --json`"),
}
