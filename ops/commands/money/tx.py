"""`sluice tx …`: look into a wallet's transaction lane, and act where only a person can."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

from chain.contracts.ens_names import with_addresses
from chain.keystore import load_key
from chain.lane import admin
from chain.lane.audit import audit
from chain.lane.model.intent import UNENDED, Intent
from chain.lane.model.nonce import NonceRecord
from chain.lane.rules.poco import poco_lane
from chain.lane.run import Lane
from chain.lane.store.mongo import MongoStore
from chain.lane.store.port import LaneStore
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.pool import connect
from config.settings import settings
from ops.admin import screen
from ops.admin.asking import Yes, confirm, require_yes
from ops.machine.here import machine_here
from pipeline.store.client import answering, database
from protocol.counts import count
from protocol.errors import BadInput
from protocol.types import Nonce, TxHash
from workers.data.layout import layout_of
from workers.pool.saved_config import policy_of, settings_from_pool

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Worker = Annotated[bool, typer.Option("--worker", help="This machine's worker wallet instead of the scheduler's.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it may cost; do nothing.")]
NonceArg = Annotated[int, typer.Argument(help="Nonce of an open transaction, from `sluice tx ls`.", min=0)]

#: Intents listed at once.
MOST = 200
_ETHER = 10**18
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")


def register(app: typer.Typer) -> None:
    """Add `sluice tx …`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="A wallet's transactions: see the queue, repair by hand. For the machine that has the wallet.",
    )
    commands: dict[str, tuple[Callable[..., None], str]] = {
        "ls": (_ls, "Examples: `sluice tx ls`, `sluice tx ls --json --worker`"),
        "show": (_show, "Examples: `sluice tx show 41`, `sluice tx show 0x…`"),
        "bump": (
            _bump,
            "Examples: `sluice tx bump 41`, `sluice tx bump 41 --dry-run`, `sluice tx bump 41 --yes --json`",
        ),
        "cancel": (_cancel, "Examples: `sluice tx cancel 41`, `sluice tx cancel --intent 31337:0x…:claim:0x…`"),
        "rebroadcast": (_rebroadcast, "Example: `sluice tx rebroadcast`"),
        "fill-gap": (_fill_gap, "Examples: `sluice tx fill-gap`, `sluice tx fill-gap --dry-run`"),
        "disown": (_disown, "Example: `sluice tx disown 41`"),
        "resume": (_resume, "Example: `sluice tx resume`"),
        "audit": (_audit, "Example: `sluice tx audit --json`"),
    }
    for name, (command, examples) in commands.items():
        group.command(name, epilog=examples)(answering()(command))
    app.add_typer(group, name="tx")


def _ls(as_json: Json = False, worker: Worker = False) -> None:
    """What is open, what stands at the head of the line, and why it waits."""
    lane = _open_lane(worker)
    status = admin.status(lane)
    intents = lane.context.store.in_state(lane.id, UNENDED, MOST)
    if as_json:
        records = [_record_json(record) for record in status.open]
        _print_json({**asdict(status), "open": records, "intents": [_intent_json(intent) for intent in intents]})
        return
    console = screen.console()
    console.print(f"wallet {lane.id.wallet}, chain {lane.id.chain_id}, head {status.head}")
    console.print(f"balance {status.balance / _ETHER:.6f}, mined {status.count}, next nonce {status.next_nonce}")
    if status.halted is not None:
        console.print("[bold red]The lane stands still[/]: decide by `sluice tx disown` or `sluice tx resume`.")
    if status.waiting is not None:
        console.print("[bold yellow]The lane waits[/] for something that it cannot repair; it goes on by itself.")
    console.print(f"head of the line: {status.why}", markup=False)
    open_nonces = [
        (
            str(record.nonce),
            str(len(record.intents)),
            str(len(record.attempts)),
            f"{record.newest.fees.max_fee / 1e9:.3f}",
            str(record.sent_block or "–"),
        )
        for record in status.open
    ]
    if open_nonces:
        columns = ("nonce", "intents", "attempts", "fee cap, gwei", "sent at block")
        console.print(screen.table(columns, open_nonces, empty=""))
    listed = [
        (
            f"{intent.method} {intent.subject}",
            intent.state.value,
            screen.age(screen.clock() - intent.created_at),
            intent.reason or "",
        )
        for intent in intents
    ]
    console.print(screen.table(("intent", "state", "age", "why"), listed, empty="No intent is open."))


def _show(
    what: Annotated[str, typer.Argument(help="A nonce, the key of an intent, or a transaction's hash.")],
    as_json: Json = False,
    worker: Worker = False,
) -> None:
    """Everything about one nonce or one intent: attempts, receipt, reasons."""
    lane = _open_lane(worker)
    store = lane.context.store
    record = _record(lane, what)
    intents = store.intents(record.intents + record.released if record else [what])
    if record is None and not intents:
        raise BadInput(what=f"There is no nonce and no intent {what} in this lane.")
    found = {
        "nonce": None if record is None else _record_json(record),
        "intents": [_intent_json(intent) for intent in intents],
    }
    if as_json:
        _print_json(found)
    else:
        Console(soft_wrap=True).print_json(json.dumps(found, default=str))


def _record(lane: Lane, what: str) -> NonceRecord | None:
    """The record of a nonce, of a transaction by its hash, or of an intent by its key; None if the lane has none."""
    store = lane.context.store
    if what.isdecimal():
        return store.record(lane.id, Nonce(int(what)))
    if _HASH.fullmatch(what) is None:
        return store.holding(lane.id, what)
    nonce = admin.nonce_of(lane, TxHash(what.lower()))
    return None if nonce is None else store.record(lane.id, nonce)


def _bump(
    nonce: NonceArg, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False, worker: Worker = False
) -> None:
    """Raise the price of an open transaction: same nonce, same call; shows what it may cost, and asks."""
    require_yes(yes=yes, dry_run=dry_run, as_json=as_json)
    lane = _open_lane(worker)
    offer = admin.quote_bump(lane, Nonce(nonce))
    _replace_nonce(offer, yes, dry_run, as_json, lambda: admin.bump(lane, Nonce(nonce)))


def _cancel(
    nonce: Annotated[int | None, typer.Argument(help="Nonce of an open transaction.", min=0)] = None,
    intent: Annotated[str | None, typer.Option(help="Key of an intent that has no nonce yet.")] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    worker: Worker = False,
) -> None:
    """Give an action up: spend its nonce on a 0-value self-transfer, or take it out of the queue.

    Shows what the transfer may cost, and asks. What has no nonce yet costs nothing. Mind what the action was for: a
    vote that is not revealed, and a task that is neither finalized nor reopened in time, lose their stake.
    """
    if (nonce is None) == (intent is None):
        raise BadInput(what="Name either a nonce or, with --intent, an intent.")
    if nonce is not None:
        require_yes(yes=yes, dry_run=dry_run, as_json=as_json)
        lane = _open_lane(worker)
        offer = admin.quote_cancel(lane, Nonce(nonce))
        _replace_nonce(offer, yes, dry_run, as_json, lambda: admin.cancel(lane, Nonce(nonce)))
        return
    lane = _open_lane(worker)
    admin.cancel_queued(lane, str(intent), dry_run=dry_run)
    _print_answer({"intent": intent, "done": not dry_run}, as_json)


def _rebroadcast(dry_run: DryRun = False, as_json: Json = False, worker: Worker = False) -> None:
    """Send all open transactions to the nodes again. Costs nothing."""
    lane = _open_lane(worker)
    open_nonces = [record.nonce for record in admin.status(lane).open]
    answers = [] if dry_run else admin.rebroadcast(lane)
    _print_answer({"nonces": open_nonces, "answers": answers, "done": not dry_run}, as_json)


def _fill_gap(yes: Yes = False, dry_run: DryRun = False, as_json: Json = False, worker: Worker = False) -> None:
    """Fill nonces that have no transaction, so that those above can be mined; shows what it may cost, and asks.

    The lane does so itself a block later.
    """
    require_yes(yes=yes, dry_run=dry_run, as_json=as_json)
    lane = _open_lane(worker)
    offer = admin.quote_gaps(lane)
    price = _print_price(offer, as_json)
    if not dry_run and offer.nonces:
        confirm(f"Fill {count(len(offer.nonces), 'nonce')}?", yes=yes)
    gaps = list(offer.nonces) if dry_run else admin.fill_gaps(lane)
    _print_answer({"gaps": gaps, **price, "done": not dry_run}, as_json)


def _disown(nonce: NonceArg, dry_run: DryRun = False, as_json: Json = False, worker: Worker = False) -> None:
    """Accept that a transaction from outside took this nonce: its actions are judged again, and the lane goes on."""
    moves = admin.disown(_open_lane(worker), Nonce(nonce), dry_run=dry_run)
    become = {key: f"{move.state.value}: {move.reason}" for move in moves for key in move.keys}
    _print_answer({"nonce": nonce, "intents": become, "done": not dry_run}, as_json)


def _resume(dry_run: DryRun = False, as_json: Json = False, worker: Worker = False) -> None:
    """Let a lane that stands still go on as it is; it stops again if what stopped it is still so."""
    why = admin.resume(_open_lane(worker), dry_run=dry_run)
    _print_answer({"stood_still": why, "done": not dry_run}, as_json)


def _audit(as_json: Json = False, worker: Worker = False) -> None:
    """Compare the records with the chain and with each other. Exit code 1 if something is odd."""
    findings = audit(_open_lane(worker))
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        rows = [
            (item.kind, "" if item.nonce is None else str(item.nonce), item.intent or "", item.says)
            for item in findings
        ]
        columns = ("kind", "nonce", "intent", "says")
        screen.console().print(screen.table(columns, rows, empty="All is as the chain says."))
    if findings:
        raise typer.Exit(1)


# -- shared ------------------------------------------------------------------------------------------------------------


def _open_lane(worker: bool) -> Lane:
    """The lane of the settings: with `worker` that of this machine's wallet, else the scheduler's."""
    given = settings()
    key = load_key(given)
    if worker:
        # Before a store is made where the machine has none.
        machine_here(given, key.wallet)
    # A machine's settings leave open what its pool knows: hub, chain and node.
    now = settings_from_pool(given, key.wallet) if worker else with_addresses(given)
    rpc = connect(now)
    store: LaneStore = SqliteStore(layout_of(now.home, key.wallet).lane) if worker else MongoStore(database(now))
    return poco_lane(now, rpc, key, store, policy_of(now) if worker else None)


def _replace_nonce(
    offer: admin.ReplacementPrice, yes: bool, dry_run: bool, as_json: bool, act: Callable[[], admin.Replaced]
) -> None:
    """Print what a replacement costs and ask; then call `act` unless `dry_run`, and print the outcome."""
    answer = {"nonce": offer.nonces[0], **_print_price(offer, as_json)}
    if dry_run:
        _print_answer(answer | {"done": False}, as_json)
        return
    confirm("Send it?", yes=yes)
    replaced = act()
    _print_answer(answer | {"tx": replaced.record.newest.tx_hash, "answer": replaced.answer, "done": True}, as_json)


def _print_price(offer: admin.ReplacementPrice, as_json: bool) -> dict[str, int]:
    """The price as JSON; in words it is printed at once, before anything is sent."""
    if not as_json:
        cost, cap = offer.cost / _ETHER, offer.fees.max_fee / 1e9
        Console(stderr=True).print(f"costs at most {cost:.9f} of the native token at {cap:.3f} gwei")
    return {"max_fee_wei": offer.fees.max_fee, "tip_wei": offer.fees.tip, "cost_wei_at_most": offer.cost}


def _print_answer(answer: dict[str, Any], as_json: bool) -> None:
    """Print the answer as JSON, or else a line for each field."""
    if as_json:
        _print_json(answer)
        return
    for name, value in answer.items():
        Console(soft_wrap=True).print(f"{name}: {value}")


def _print_json(answer: object) -> None:
    """Print an answer as indented JSON."""
    print(json.dumps(answer, indent=1, default=str))


def _record_json(record: NonceRecord) -> dict[str, Any]:
    """A nonce record as JSON for the command's answer, without raw transactions."""
    return {
        "nonce": record.nonce,
        "state": record.state.value,
        "intents": record.intents,
        "released": record.released,
        "to": record.to,
        "gas": record.gas,
        "sent_block": record.sent_block,
        "mined": None if record.mined is None else asdict(record.mined),
        "attempts": [
            {
                "tx": attempt.tx_hash,
                "purpose": attempt.purpose.value,
                "gas": record.gas_of(attempt),
                "max_fee_wei": attempt.fees.max_fee,
                "tip_wei": attempt.fees.tip,
                "note": attempt.note,
            }
            for attempt in record.attempts
        ],
    }


def _intent_json(intent: Intent) -> dict[str, Any]:
    """An intent as JSON for the command's answer."""
    return {
        "key": intent.key,
        "method": intent.method,
        "subject": intent.subject,
        "state": intent.state.value,
        "generation": intent.generation,
        "block": intent.block,
        "created_at": intent.created_at,
        "reason": intent.reason,
    }
