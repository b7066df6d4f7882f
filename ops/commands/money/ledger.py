"""`sluice ledger`: what the pool earned and spent, and whether that equals the chain."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import DryRun, Json
from ops.machine.income import moment_of
from protocol.amounts import ether, rlc
from protocol.counts import count
from protocol.errors import BadInput

#: Lines in one answer of the API at most.
MOST_LINES = 10_000
#: Columns of the CSV, in the units that their names end with.
COLUMNS = (
    "key",
    "name",
    "at",
    "transactions",
    "gas_wei",
    "sent_wei",
    "deposit_nrlc",
    "withdrawal_nrlc",
    "lock_nrlc",
    "unlock_nrlc",
    "reward_nrlc",
    "kitty_nrlc",
    "seize_nrlc",
    "sent_nrlc",
    "received_nrlc",
    "earned_nrlc",
)
#: Columns of the screen: those without any amount are left out. Title, field, how it is written.
_AMOUNTS = (
    ("gas", "gas_wei", ether),
    ("sent", "sent_wei", ether),
    ("deposited", "deposit_nrlc", rlc),
    ("withdrawn", "withdrawal_nrlc", rlc),
    ("locked", "lock_nrlc", rlc),
    ("unlocked", "unlock_nrlc", rlc),
    ("rewards", "reward_nrlc", rlc),
    ("kitty", "kitty_nrlc", rlc),
    ("seized", "seize_nrlc", rlc),
    ("sent RLC", "sent_nrlc", rlc),
    ("received RLC", "received_nrlc", rlc),
    ("earned", "earned_nrlc", rlc),
)


class By(StrEnum):
    """What a line is about."""

    TASK = "task"
    DAY = "day"
    WORKER = "worker"
    KIND = "kind"


def register(app: typer.Typer) -> None:
    """Add `sluice ledger`."""
    group = typer.Typer(invoke_without_command=True)
    group.callback(
        epilog="Examples: `sluice ledger`, `sluice ledger --since 4w --until 2w`, `sluice ledger --by task --csv`",
    )(_ledger)
    group.command("accept", epilog="Examples: `sluice ledger accept 1234`, `sluice ledger accept 1234 --dry-run`")(
        _accept
    )
    app.add_typer(group, name="ledger")


def _ledger(
    context: typer.Context,
    by: Annotated[By, typer.Option("--by", help="What a line is about.")] = By.KIND,
    since: Annotated[
        str, typer.Option("--since", help="How far back: `24h`, `7d`, `4w`, or a day or moment like `2026-11-01`.")
    ] = "7d",
    until: Annotated[
        str | None, typer.Option("--until", help="Up to which time, written like `--since`; default: now.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all lines as CSV, in wei and nRLC.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=MOST_LINES, help="Lines at most, the newest; --csv prints all.")
    ] = 1000,
    as_json: Json = False,
) -> None:
    """What the pool earned and spent: gas by kind, rewards, and stakes locked, unlocked and seized, by the chain.

    Gas is of the scheduler's wallet, reverted and replaced transactions too. `--by worker`: what the contracts paid to
    the pool's machines. Below the lines: whether all of it equals the chain to the wei and nRLC, and what the open
    deals will bring. Exit code 1 if it does not equal the chain.
    """
    if context.invoked_subcommand is not None:
        return
    if as_csv and as_json:
        raise BadInput(what="Either --csv or --json, not both.")
    now = screen.clock()
    start = max(0.0, moment_of(since, now))
    end = None if until is None else max(0.0, moment_of(until, now))
    if end is not None and end <= start:
        raise BadInput(what="--until must be later than --since.")
    ask = partial(OperatorApi.open().get, "/ledger", by=str(by), since=start, until=end)
    if as_csv:
        lines, found = all_lines(ask)
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**line, "name": _as_text(line["name"])} for line in lines)
    else:
        found = ask(limit=limit)
        screen.show(found, drawn(found), as_json=as_json)
    differs = found["reconciled"]
    if any(differs[name] for name in ("differs_stake_nrlc", "differs_locked_nrlc", "differing")):
        raise typer.Exit(1)


def _accept(
    block: Annotated[int, typer.Argument(help="A block of the difference, as `sluice ledger` shows it.", min=1)],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Say that you know where the native token went that differs at this block: it counts as a difference no more.

    For a transaction that you sent with the scheduler's key yourself, where the node cannot show it any more. Other
    differences stay, and the next one is seen.
    """
    answer = OperatorApi.open().post("/ledger/accept", {"block": block}, dry_run=dry_run)
    screen.show(answer, screen.changed(answer), as_json=as_json)


def all_lines(ask: Callable[..., Any]) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """All lines of the ledger, the oldest first, and the last answer. `ask`: one page, by `limit` and `after`."""
    lines: dict[str, Mapping[str, Any]] = {}
    after: str | None = ""
    while after is not None:
        found = ask(limit=MOST_LINES, after=after)
        for line in found["lines"]:
            # What was added to a line meanwhile moved it to this page.
            lines.pop(line["key"], None)
            lines[line["key"]] = line
        after = found["next"]
    return list(lines.values()), found


def _as_text(name: str | None) -> str | None:
    """A machine's name, which a stranger wrote, so that no spreadsheet takes it for a formula."""
    return f"'{name}" if name and name[0] in "=+-@\t\r" else name


def drawn(found: Mapping[str, Any]) -> RenderableType:
    """The ledger on a screen: RLC and native token."""
    books, forecast = found["reconciled"], found["forecast"]
    held = {
        "wallet": f"{found['wallet']} on chain {found['chain_id']}",
        "since": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found["since"])),
        "until": None if found["until"] is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found["until"])),
        "in the hub": None
        if books["stake_nrlc"] is None
        else f"{rlc(books['stake_nrlc'])} RLC free, {rlc(books['locked_nrlc'])} RLC locked",
        "gas": None if books["native_wei"] is None else f"{ether(books['native_wei'])} of the native token",
        "open deals": None if forecast is None else _forecast(forecast),
    }
    outside = [Text(_outside(item)) for item in books["outside"]]
    if books["outside_more"]:
        rest = f"{books['outside_more']} more times since the books began: {ether(books['outside_more_wei'])}"
        outside.append(Text(f"not of the lane, {rest} of the native token in all"))
    more = (
        Text(f"… {found['more']} older lines: raise --limit, set --until, or print all with --csv.")
        if found["more"]
        else None
    )
    return screen.stacked(
        _table(found["by"], found["lines"], found["total"]),
        more,
        Text(""),
        screen.pairs(held),
        *outside,
        Text(books["says"], style="green" if books["says"].endswith("0 wei and 0 nRLC.") else "bold red"),
    )


def _table(by: str, lines: Sequence[Mapping[str, Any]], total: Mapping[str, Any]) -> RenderableType:
    """The ledger's lines and their total as a table, without columns that hold nothing."""
    used = [column for column in _AMOUNTS if total[column[1]]]
    by_worker = by == "worker"
    titles = (by, *(("machine",) if by_worker else ("transactions",)), *(title for title, _, _ in used))
    rows = [
        (
            line["key"],
            (line["name"] or "") if by_worker else str(line["transactions"] or ""),
            *(write(line[name]) if line[name] else "" for _, name, write in used),
        )
        for line in [*lines, total]
    ]
    return screen.table(titles, rows if lines else [], empty="Nothing was earned or spent since then.")


def _forecast(found: Mapping[str, Any]) -> str:
    """What the open deals will bring, as a sentence."""
    says = (
        f"{count(found['tasks'], 'task')} of {count(found['deals'], 'deal')} bring"
        f" the scheduler {rlc(found['scheduler_nrlc'])} RLC"
        f" if all complete, workers {rlc(found['workers_nrlc'])} RLC; they lock {rlc(found['locked_nrlc'])} RLC"
    )
    return says + (f"; not in it: {count(found['unknown_tasks'], 'task')}" if found["unknown_tasks"] else "")


def _outside(item: Mapping[str, Any]) -> str:
    """A change of the wallet's balance that is not of the lane, as a sentence."""
    between = f"between blocks {item['after_block']} and {item['until_block']}"
    if item["until_block"] - item["after_block"] == 1:
        between = f"in block {item['until_block']}"
    by = f": {', '.join(item['transactions'])}" if item["transactions"] else ""
    if item["wei"] > 0 and not item["foreign_transactions"]:
        return f"received from others: {ether(item['wei'])} of the native token {between}{by}"
    sent = f" by {item['foreign_transactions']} transactions" if item["foreign_transactions"] else ""
    says = f"not of the lane: {ether(item['wei'])} of the native token{sent} {between}{by}"
    if item["differs"]:
        return f"{says} (if you know why: `sluice ledger accept {item['until_block']}`)"
    return f"{says} (accepted)" if item["accepted"] else says
