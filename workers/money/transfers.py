"""Deposits of RLC in the hub and withdrawals, sent through the wallet's lane, so that the lane gives every nonce.

deposit     token hub: approveAndCall of RLC, the hub takes the amount    native hub: deposit, with the amount as value
withdraw    withdraw of the hub: what is free

wish on disk ──► intent in the lane ──► wish marked ──► block ──► printed ──► wish deleted
     └── a run that finds one goes on with it, and begins nothing of its own that is equal

A wish is given to the lane once, within WISH_SECONDS: one that is older, or that the lane has had and does not know any
more, is dropped, and the command reports that. The lane sends it within the same time or not at all.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from chain.contracts.hub import Hub
from chain.lane import transfer
from chain.lane.model.intent import UNTIL, Intent, IntentState
from chain.lane.run import Lane
from chain.lane.transfer import Direction, Transfer
from chain.rpc.heads import heads
from config.settings import Settings
from config.whole_files import write_whole
from protocol.amounts import rlc
from protocol.errors import LaneError, RefusedHere, TransferDropped
from protocol.types import Contract, NRlc, Wei
from workers.data.layout import Layout

_LOCK = "transfer"
#: Seconds after which a transfer is not sent any more: a command that waits for it has repeated it by then, or ended.
WISH_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """A transfer that the operator has confirmed, as the file on disk that makes it survive a crash. It is deleted once
    its outcome was printed.
    """

    direction: Direction
    amount: NRlc
    #: Unix seconds.
    begun_at: float
    to: Contract
    data: str
    value: Wei
    gas: int
    #: Chain that it is for; 0 in wishes of releases before this one.
    chain_id: int = 0
    #: Whether the lane has had it: then only the lane can say what became of it.
    handed: bool = False

    def intent(self, lane: Lane) -> Intent:
        """The intent for the lane: always the same one for the same wish, so that the lane sends it once."""
        until = self.begun_at + WISH_SECONDS
        args: dict[str, object] = {"to": self.to, "gas": self.gas, "data": self.data, "value": str(self.value)}
        args[UNTIL] = until
        subject, occasion = f"{self.direction}-{self.amount}", int(self.begun_at * 1000)
        return Intent.new(lane.id.chain_id, lane.id.wallet, "call", subject, args, self.begun_at, occasion=occasion)


@dataclass(frozen=True, slots=True)
class Made:
    """A transfer that is in a block. `paid`: wei of gas, by the receipt."""

    direction: Direction
    amount: NRlc
    tx: str
    block: int
    paid: Wei


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keep other deposits and withdrawals of this wallet out until the block ends. Raises RefusedHere."""
    with layout.lock(_LOCK, wait=False) as held:
        if not held:
            raise RefusedHere(why="another deposit or withdrawal of this wallet is under way: wait for it")
        yield


def pending(layout: Layout) -> Wish | None:
    """The wish that an earlier command left on disk; None if there is none. Raises RefusedHere if the file is not
    readable.
    """
    try:
        return Wish(**json.loads(layout.transfer.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        why = (
            f"{layout.transfer}, which names a transfer under way, cannot be read: see `sluice tx ls --worker` whether"
        )
        raise RefusedHere(why=f"{why} it was sent, then remove the file") from error


def plan(lane: Lane, hub: Hub, direction: Direction, amount: NRlc, promised: NRlc) -> Transfer:
    """Check that the machine's wallet can pay for a transfer, and tell its highest cost: `chain.lane.transfer.plan`."""
    return transfer.plan(hub, lane.id, lane.context.policy, lane.context.store, direction, amount, promised)


def begin(layout: Layout, made: Transfer, chain_id: int, now: float) -> Wish:
    """Write the wish to disk: from then on the transfer is made at most once, whatever crashes. `now`: Unix seconds."""
    wish = Wish(made.direction, made.amount, now, made.to, made.data, made.value, made.gas, chain_id)
    _write(layout, wish)
    return wish


def _write(layout: Layout, wish: Wish) -> None:
    """Store a wanted deposit or withdrawal."""
    write_whole(layout.transfer, json.dumps(asdict(wish)))


def finish(layout: Layout) -> None:
    """Delete the wish, once its outcome was printed."""
    layout.transfer.unlink(missing_ok=True)


def carry_out(layout: Layout, lane: Lane, wish: Wish, settings: Settings, seconds: float) -> Made | None:
    """Have the lane send the transfer, and wait at most `seconds` for its block; None if it is in no block by then.

    A running machine may send it as well: only one run of the lane is possible at a time. Raises LaneError if the lane
    is halted; TransferDropped if the transfer will not be made (too old, or refused by the contract).
    """
    intent = wish.intent(lane)
    if not lane.intents([intent.key]):
        why = _why_dropped(wish, lane.id.chain_id, lane.context.clock())
        if why is not None:
            raise _dropped(wish, why)
        lane.submit([intent])
    if not wish.handed:
        _write(layout, replace(wish, handed=True))
    stop = threading.Event()
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()
    try:
        for _ in heads(settings.ws_url, lane.context.rpc, settings.block_time, stop):
            made = _advance(lane, wish, intent)
            if made is not None:
                return made
    finally:
        timer.cancel()
    return _advance(lane, wish, intent)


def _why_dropped(wish: Wish, chain_id: int, now: float) -> str | None:
    """Why a wish that the lane does not know must not be given to the lane; None if it may. `now`: Unix seconds."""
    if wish.chain_id not in (0, chain_id):
        return (
            f"it was begun on chain {wish.chain_id}, and this is chain {chain_id}. The wallet's transactions there say"
            " whether it was sent"
        )
    if wish.handed:
        return (
            "this machine had it under way, and its lane.db does not know it any more: it was deleted or replaced, or"
            " six weeks have passed. Look at the wallet's transactions whether it was sent, and ask again only if not"
        )
    # A wish from the future was written under a wrong clock: its age is not known.
    if abs(now - wish.begun_at) > WISH_SECONDS:
        return f"it was begun on {_day(wish.begun_at)} and never sent. Ask again if you still want it"
    return None


def _dropped(wish: Wish, why: str) -> TransferDropped:
    """The error for a deposit or withdrawal that was given up."""
    return TransferDropped(direction=wish.direction, amount=rlc(wish.amount), why=why)


def _day(moment: float) -> str:
    """A moment (Unix seconds) as text, by the operator's wall clock."""
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def _advance(lane: Lane, wish: Wish, intent: Intent) -> Made | None:
    """Run the lane once; returns the transfer if it is in a block, None if it is still under way."""
    report = lane.run()
    (now,) = lane.intents([intent.key])
    if now.state is IntentState.FAILED:
        raise _dropped(wish, now.reason or "it was given up")
    record = lane.context.store.holding(lane.id, intent.key)
    if now.state in (IntentState.MINED, IntentState.FINAL) and record is not None and record.mined is not None:
        mined = record.mined
        return Made(wish.direction, wish.amount, mined.tx_hash, mined.block, mined.fee)
    if report.halted is not None:
        raise LaneError(wallet=lane.id.wallet, why=report.halted)
    return None
