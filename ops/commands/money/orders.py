"""`sluice orders …`: what the pool offers on iExec's market: show, plan, publish, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from config.values.order_policy import TAGS
from ops.admin import screen
from ops.admin.asking import Yes, confirm, require_yes
from ops.admin.client import OperatorApi
from ops.admin.screen import DryRun, Json, age
from protocol.amounts import ether, rlc
from protocol.errors import BadInput

Hashes = Annotated[list[str] | None, typer.Argument(metavar="[HASH…]", help="Whole hashes, from `sluice orders ls`.")]
All = Annotated[bool, typer.Option("--all", help="Every order, and offer nothing until `sluice orders publish`.")]


def register(app: typer.Typer) -> None:
    """Add `sluice orders …`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Workerpool orders on iExec's market, by the policy in SLUICE_ORDERS_FILE: show, plan, publish, cancel.",
    )
    group.command(
        "ls", epilog="Examples: `sluice orders ls`, `sluice orders ls --ended --json`. Exit codes: 0, 1 no answer."
    )(_ls)
    group.command(
        "plan",
        epilog="Examples: `sluice orders plan`, `sluice orders plan --json`. Exit codes: 0, 1 the policy's file is"
        " wrong, or no answer.",
    )(_plan)
    group.command(
        "publish",
        epilog="Examples: `sluice orders publish`, `sluice orders publish --dry-run`. Exit codes: 0, 1 no answer.",
    )(_publish)
    group.command(
        "cancel",
        epilog="Examples: `sluice orders cancel --all`, `sluice orders cancel 0x2f1c… --yes --json`,"
        " `sluice orders cancel --all --dry-run`. Exit codes: 0, 1 not confirmed or no answer, 2 wrong words.",
    )(_cancel)
    app.add_typer(group, name="orders")


def _ls(
    ended: Annotated[bool, typer.Option("--ended", help="Those too from which nobody can buy any more.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Lines at most.")] = 100,
    as_json: Json = False,
) -> None:
    """The orders, the newest first: what is left of each, whether the market lists it, how far its close is."""
    found = OperatorApi.open().get("/orders", ended=ended, limit=limit)
    now = screen.clock()
    rows = [
        (
            item["order_hash"],
            item["stage"],
            _kind(item),
            f"{rlc(item['price_nrlc'])} RLC",
            f"{item['remaining']} of {item['volume']}",
            age(now - item["signed_at"]),
            "yes" if item["listed"] else "no",
            _note(item),
        )
        for item in found["orders"]
    ]
    columns = ("order", "stage", "offer", "price", "left", "age", "listed", "note")
    drawn = screen.table(columns, rows, empty="There is no order.")
    screen.show(found, screen.stacked(drawn, *_notes(found)), as_json=as_json)


def _plan(as_json: Json = False) -> None:
    """What machines could serve now, and what would be signed, published, withdrawn and closed; nothing is changed."""
    found = OperatorApi.open().get("/orders/plan")
    rows = [
        (
            item["action"],
            _kind(item),
            f"{rlc(item['price_nrlc'])} RLC",
            str(item["volume"]),
            item["order_hash"] or "",
            "" if item["cost_wei"] is None else f"at most {ether(item['cost_wei'])}",
            item["why"] or "",
        )
        for item in found["actions"]
    ]
    stake = found["stake_nrlc"]
    facts: dict[str, object] = {
        "machines": f"{found['machines']} that could be given a task, {found['free_slots']} slots free",
        "sold": f"{found['waiting_tasks']} tasks wait for a machine",
        "stake": "not known: nothing is signed" if stake is None else f"{rlc(stake)} RLC free for deals",
        "offered": f"{found['offered']} tasks",
        "deals": None if found["settled"] else "some are still to be read: nothing is signed before",
    }
    columns = ("action", "offer", "price", "tasks", "order", "gas", "why")
    drawn = screen.table(columns, rows, empty="Nothing is to be done.")
    screen.show(found, screen.stacked(screen.pairs(facts), drawn, *_notes(found)), as_json=as_json)
    if found["trouble"]:
        raise typer.Exit(1)


def _publish(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Offer what the policy says, also after `cancel --all`. The pool does that by itself within seconds of a change;
    this does not wait for it.
    """
    answer = OperatorApi.open().post("/orders/publish", dry_run=dry_run)
    screen.show(answer, screen.changed(answer), as_json=as_json)


def _cancel(
    hashes: Hashes = None, every: All = False, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Take orders from the market, and close on chain those that somebody may have a copy of, for gas.

    An order that is named is replaced by what the policy says; with --all, nothing is offered until `publish`.
    """
    if bool(hashes) == every:
        raise BadInput(what="Give hashes of orders, or --all.")
    require_yes(yes=yes, dry_run=dry_run, as_json=as_json)
    api, body = OperatorApi.open(), {"orders": hashes or [], "all": every}
    planned = api.post("/orders/cancel", body, dry_run=True)
    if dry_run:
        screen.show(planned, screen.changed(planned), as_json=as_json)
        return
    if planned["closes"] and not yes:
        Console(stderr=True, soft_wrap=True, highlight=False).print(screen.printable(planned["says"]))
        confirm("Cancel them?", yes=yes)
    answer = api.post("/orders/cancel", body)
    screen.show(answer, screen.changed(answer), as_json=as_json)


def _kind(item: Mapping[str, Any]) -> str:
    """The offer of a line: category, trust, and what a machine must have."""
    bits = int(item["tag"], 16)
    names = [name for name, wanted in TAGS.items() if bits & wanted == wanted]
    return f"category {item['category']}, trust {item['trust']}{''.join(f', {name}' for name in names)}"


def _note(item: Mapping[str, Any]) -> str:
    """What a person should know of one order."""
    close = f"close {item['close']}" if item["close"] else ""
    fee = f"gas {ether(item['close_fee_wei'])}" if item["close_fee_wei"] is not None else ""
    says = f"the market is asked again: {item['says']}" if item["says"] else ""
    return "; ".join(part for part in (item["why"], close, fee, says) if part)


def _notes(found: Mapping[str, Any]) -> list[RenderableType]:
    """What holds for all orders, in sentences."""
    market = found["market"]
    notes = (
        (found["trouble"], f"The policy cannot be read, and nothing is signed. {found['trouble']}"),
        (found["held"], "An operator has cancelled all offers: `sluice orders publish` ends that."),
        (found["paused"], "The pool is paused: nothing is offered until `sluice pool resume`."),
        (market is None and not found["trouble"], "No market is set in SLUICE_ORDERS_FILE: nothing is offered."),
    )
    return [Text(screen.printable(says)) for holds, says in notes if holds]
