"""`sluice stake …`: the scheduler's stake in the hub, deposits and withdrawals."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from ops.admin import screen
from ops.admin.asking import Yes, confirm, require_yes
from ops.admin.client import OperatorApi
from ops.admin.screen import DryRun, Json, native
from protocol.amounts import amount_of, ether, rlc
from protocol.counts import count
from protocol.errors import BadInput, NotReady, TransferDropped

#: Seconds for which a transaction is waited for, and between two checks.
WAIT_SECONDS, LOOK_SECONDS = 300.0, 1.0
#: The API's words for a transfer that is over.
_MADE, _DROPPED = "made", "dropped"

Amount = Annotated[str, typer.Argument(help="How much, like `12.5 RLC` or `100 nRLC`.")]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait until a block has it.", min=1)]


def register(app: typer.Typer) -> None:
    """Add `sluice stake …`."""
    group = typer.Typer(no_args_is_help=True, help="The scheduler's stake in the hub: show, deposit, withdraw.")
    group.command("show", epilog="Examples: `sluice stake show`, `sluice stake show --json`")(_show)
    group.command(
        "deposit", epilog="Examples: `sluice stake deposit '12.5 RLC'`, `sluice stake deposit '1 RLC' --yes --json`"
    )(_deposit)
    group.command(
        "withdraw", epilog="Examples: `sluice stake withdraw '3 RLC'`, `sluice stake withdraw '3 RLC' --dry-run`"
    )(_withdraw)
    app.add_typer(group, name="stake")


def _show(as_json: Json = False) -> None:
    """What is free and what deals lock, for how many more tasks it is enough, and how much gas may be spent."""
    found = OperatorApi.open().get("/stake")
    screen.show(found, drawn(found), as_json=as_json)


def _deposit(
    amount: Amount, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False, wait: Wait = WAIT_SECONDS
) -> None:
    """Deposit RLC of the scheduler's wallet in the hub, as stake; shows what gas may cost, and asks.

    The scheduler's lane sends it. After a crash, run the same command again: it waits for what is under way, and pays
    nothing twice.
    """
    _move("deposit", amount, yes=yes, dry_run=dry_run, as_json=as_json, wait=wait)


def _withdraw(
    amount: Amount, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False, wait: Wait = WAIT_SECONDS
) -> None:
    """Withdraw free RLC from the hub into the scheduler's wallet; never what deals lock.

    Without free stake no further deal can be matched on the pool. After a crash, run the same command again: it waits
    for what is under way, and withdraws nothing twice.
    """
    _move("withdraw", amount, yes=yes, dry_run=dry_run, as_json=as_json, wait=wait)


def _move(direction: str, text: str, *, yes: bool, dry_run: bool, as_json: bool, wait: float) -> None:
    """Deposit or withdraw (`direction`) an amount written as `text`, after asking unless `yes`; wait for its end for
    `wait` seconds.
    """
    amount = amount_of(text)
    require_yes(yes=yes, dry_run=dry_run, as_json=as_json)
    api, body = OperatorApi.open(), {"amount_nrlc": amount}
    before = None if dry_run else api.get("/stake/transfer")["transfer"]
    if before is not None:
        _say(f"A {before['direction']} of {rlc(before['amount_nrlc'])} RLC was begun before; it comes first.")
        same = (before["direction"], before["amount_nrlc"]) == (direction, amount)
        _finish(api, before, wait, as_json=as_json, shown=same or not as_json)
        if same:
            return
    planned = api.post(f"/stake/{direction}", body, dry_run=True)
    if dry_run:
        place = f"chain {planned['chain_id']}, hub {planned['hub']}: {planned['says']}"
        screen.show(planned, f"Would be, on {place}. Nothing was done.", as_json=as_json)
        return
    _say(f"chain {planned['chain_id']}, hub {planned['hub']}: {planned['says']}")
    confirm("Send it?", yes=yes)
    _finish(api, api.post(f"/stake/{direction}", body), wait, as_json=as_json, shown=True)


def _finish(api: OperatorApi, found: Mapping[str, Any], wait: float, *, as_json: bool, shown: bool) -> None:
    """Wait for a transfer's end, print it, and only then have the API forget it. Raises NotReady, TransferDropped."""
    until, resumed, transfer = time.monotonic() + wait, found["resumed"], dict(found)
    while transfer["stage"] not in (_MADE, _DROPPED):
        if time.monotonic() >= until:
            raise NotReady(
                part=f"The {transfer['direction']} of {rlc(transfer['amount_nrlc'])} RLC",
                seconds=wait,
                log="`sluice tx ls`",
                why=f"It {transfer['why'] or transfer['stage']}, an hour at most. Run the same command again: it waits"
                " for this one and sends nothing twice.",
            )
        time.sleep(LOOK_SECONDS)
        now = api.get("/stake/transfer")["transfer"]
        if now is None:
            raise BadInput(what="Another command has seen the end of this transfer: see `sluice stake show`.")
        transfer = dict(now)
    if transfer["stage"] == _DROPPED:
        api.post("/stake/transfer/told")
        raise TransferDropped(direction=transfer["direction"], amount=rlc(transfer["amount_nrlc"]), why=transfer["why"])
    stake = api.get("/stake")
    if shown:
        _print_made({**transfer, "resumed": resumed}, stake, as_json=as_json)
    api.post("/stake/transfer/told")


def _print_made(made: Mapping[str, Any], stake: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a finished deposit or withdrawal, and the stake after it."""
    if as_json:
        account = {"free_nrlc": stake["free_nrlc"], "locked_nrlc": stake["locked_nrlc"]}
        print(json.dumps({**made, **account, "done": True}, indent=1))
        return
    way = "deposited" if made["direction"] == "deposit" else "withdrawn"
    before = ", begun by an earlier command" if made["resumed"] else ""
    print(f"{rlc(made['amount_nrlc'])} RLC {way} in block {made['block']}{before}: {made['tx']}")
    print(f"gas {ether(made['fee_wei'])} of the native token; in the hub now {rlc(stake['free_nrlc'])} RLC free")


def drawn(found: Mapping[str, Any]) -> RenderableType:
    """The stake on a screen."""
    spend, transfer, price = found["spend"], found["transfer"], found["price_nrlc"]
    cap, enough = spend["cap_wei"], found["tasks_paid_for"]
    facts: dict[str, object] = {
        "wallet": f"{found['wallet']}, at block {found['block']}",
        "free": f"{rlc(found['free_nrlc'])} RLC in the hub",
        "locked": f"{rlc(found['locked_nrlc'])} RLC, {rlc(found['locked_by_open_nrlc'])} RLC of it by"
        f" {count(found['open_tasks'], 'open task')} of {count(found['open_deals'], 'deal')}",
        "a further task": None
        if price is None
        else f"locks {rlc(found['locks_per_task_nrlc'])} RLC at the last deal's price of {rlc(price)} RLC",
        "enough for": None if enough is None else f"{enough} more tasks of that price",
        "outside": f"{rlc(found['outside_nrlc'])} RLC in the wallet",
        "gas": native(found["native_wei"]),
        "lasts": found["gas_says"],
        "spent in 24 h": f"{ether(spend['spent_wei'])} of the native token on gas",
        "daily cap": "none (SLUICE_DAILY_SPEND_CAP_WEI)"
        if cap is None
        else f"{ether(cap)} of the native token, {ether(spend['left_wei'])} left",
        "under way": None
        if transfer is None
        else f"a {transfer['direction']} of {rlc(transfer['amount_nrlc'])} RLC: {transfer['stage']}",
    }
    return screen.pairs(facts)


def _say(words: str) -> None:
    """Print words for people on standard error."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(words)
