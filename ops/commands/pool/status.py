"""`sluice status`: the pool on one screen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import Json, age, native
from protocol.amounts import rlc
from protocol.counts import count


def register(app: typer.Typer) -> None:
    """Add `sluice status`."""
    app.command("status", epilog="Examples: `sluice status`, `sluice status --watch`, `sluice status --json`")(_status)


def _status(
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("--every", help="Least seconds between two looks of --watch.", min=1)] = 1.0,
) -> None:
    """Whether the pool works, what needs you, and how much it does. Exit code 1 if something needs you.

    Asks the scheduler's operations port (SLUICE_ADMIN_URL) with the operator's token (SLUICE_ADMIN_TOKEN, or
    `admin.token` in SLUICE_HOME).
    """
    api = OperatorApi.open()
    found = api.get("/status")
    if not watch:
        screen.show(found, drawn(found, api.page), as_json=as_json)
        raise typer.Exit(0 if found["ok"] else 1)
    with suppress(KeyboardInterrupt, BrokenPipeError):
        if as_json:
            for seen in _at_most(api.follow("/live"), every):
                # One line for each answer.
                print(json.dumps(seen), flush=True)
        if not (out := screen.console()).is_terminal:
            for seen in _at_most(api.follow("/live"), every):
                out.print(drawn(seen, api.page))
                out.file.flush()
        with Live(drawn(found, api.page), console=Console(highlight=False), auto_refresh=False, screen=True) as live:
            for seen in _at_most(api.follow("/live"), every):
                live.update(drawn(seen, api.page), refresh=True)


def _at_most(told: Iterable[Any], every: float) -> Iterator[Any]:
    """The items of an iterator, but no more than one per `every` seconds: those that come sooner are dropped."""
    last = 0.0
    for found in told:
        if time.monotonic() - last >= every:
            last = time.monotonic()
            yield found


def drawn(found: Mapping[str, Any], page: str) -> RenderableType:
    """The screen. `page`: address of the web page."""
    work = found["work"]
    head = Text("The pool works.", style="bold green") if found["ok"] else Text("The pool needs you:", style="bold red")
    alerts = [
        Text(screen.printable(f"  {item['part']}: {item['says']}. {item['fix']}".rstrip())) for item in found["alerts"]
    ]
    lag = found["behind_blocks"]
    facts: dict[str, object] = {
        "web page": page,
        "Flower": found["flower"],
        "RabbitMQ": f"{found['rabbitmq']}, to look at as `{found['monitor']}`: monitor.password in SLUICE_HOME",
        "workerpool": f"{found['workerpool']} on chain {found['chain_id']}",
        "scheduler": found["scheduler"],
        "head": None if found["head"] is None else f"block {found['head']}, {lag or 0} still to be read",
        "gas": _gas(found),
        "stake": _stake(found),
        "lane": _lane(found["lane"]),
        "queues": _queues(found["queues"]),
    }
    if work is not None:
        machines = {state: number for state, number in work["machines"].items() if number}
        quarantined = work["quarantined"]
        facts |= {
            "machines": ", ".join(f"{number} {state}" for state, number in machines.items()) or "none has signed in",
            "deals, last hour": work["deals_last_hour"],
            "completed, last hour": work["completed_last_hour"],
            "transactions": f"{work['transactions_open']} open (`sluice tx ls`)",
            "quarantined": f"{count(quarantined, 'row')} (`sluice quarantine ls`)" if quarantined else None,
        }
    rows = [
        (item["stage"], str(item["count"]), age(item["oldest_seconds"]))
        for item in (work["stages"] if work is not None else ())
        if item["count"]
    ]
    tasks = screen.table(("tasks", "count", "oldest"), rows, empty="No task is open.") if work is not None else None
    return screen.stacked(head, *alerts, Text(""), screen.pairs(facts), Text(""), tasks)


def _stake(found: Mapping[str, Any]) -> str | None:
    """The scheduler's stake in the hub as text; None if the node did not say."""
    free, locked = found["stake_free_nrlc"], found["stake_locked_nrlc"]
    return None if free is None or locked is None else f"{rlc(free)} RLC free, {rlc(locked)} RLC locked by deals"


def _lane(found: Mapping[str, Any] | None) -> str | None:
    """How the scheduler's wallet's transactions stand, as text; None if that is not known."""
    if found is None:
        return None
    if found["halted"] is not None:
        return f"halted: {found['halted']} (`sluice tx ls`)"
    if found["waits"] is not None:
        return f"waits: {found['waits']} (`sluice tx ls`)"
    oldest = found["oldest_seconds"]
    return "nothing waits" if oldest is None else f"the oldest transaction is {age(oldest)} old: {found['why']}"


def _queues(found: list[Mapping[str, Any]] | None) -> str | None:
    """The queues that hold messages, as text; None if RabbitMQ did not count them."""
    if found is None:
        return None
    held = [f"{item['name']} {item['ready']} + {item['unacknowledged']} in hand" for item in found if _messages(item)]
    return f"{', '.join(held)} (`sluice queue ls`)" if held else "empty"


def _messages(item: Mapping[str, Any]) -> int:
    """Messages of a queue that wait or that a process has."""
    return int(item["ready"]) + int(item["unacknowledged"])


def _gas(found: Mapping[str, Any]) -> str | None:
    """What the wallet holds for gas and how long it lasts, as text; None if the node did not say."""
    held, tasks, says = native(found["gas_balance_wei"]), found["gas_for_tasks"], found["gas_says"]
    lasts = "" if says is None else f"; {says}"
    return None if held is None else f"{held}: enough for {count(tasks, 'task')} at the present price{lasts}"
