"""What to do about nonces that stand still: send again, raise the fee, replace by a no-op, fill a gap.

    a block without the lowest open nonce      ─► all open bytes again: whatever was dropped is back
    base fee above its fee cap                 ─► fee bump of the lowest nonce
    not mined for 4 blocks, price below market ─► fee bump of the lowest nonce
    refused for good, or left by its intents   ─► 0-value transfer to self at the same nonce
    refused for its gas limit                  ─► the same call with more gas
    nonce below the highest without a record   ─► at the next head, 0-value transfer to self

Only the lowest nonce is ever repriced: those above cannot be mined before it whatever they pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import Fees, NonceMove, NonceRecord, Purpose, Repriced, Unmined, apply
from chain.lane.phases.context import Memory, RunContext, Turn
from chain.lane.phases.snapshot import ChainSnapshot
from chain.lane.rules.fees import bump, quote, too_low
from chain.lane.rules.gas import more, transfer_gas
from chain.lane.rules.refusals import Remedy, remedies
from chain.lane.rules.send_errors import REACTIONS
from chain.lane.signer import Unsigned, to_self
from chain.lane.store.port import IntentMove
from chain.rpc.answers import Known, heard
from config.metrics import LANE_REBROADCAST
from protocol.types import Contract, Nonce

log = structlog.get_logger(__name__)

#: With very many nonces open, only so many are sent again until the lowest has been missing for so many blocks.
_PROBE, _SURE_BLOCKS = 64, 3
#: Blocks and percentile of tips that say what the market pays; above it, more money does not help.
_MARKET_BLOCKS, _MARKET_PERCENTILE = 12, 90
#: Most doublings of the timeout of a stuck transaction: 64 times 6 blocks.
_MOST_DOUBLINGS = 6


@dataclass(slots=True)
class Repairs:
    """What to send again, and the records as they stand then."""

    outbox: list[NonceRecord] = field(default_factory=list)
    #: All OPEN records by nonce.
    open: dict[Nonce, NonceRecord] = field(default_factory=dict)


def repair(
    turn: Turn, snapshot: ChainSnapshot, records: Sequence[NonceRecord], highest: Nonce | None, memory: Memory
) -> Repairs:
    """Find and store repairs; sending is up to the caller. `records`: all OPEN ones. Raises LeaseLost."""
    repairs = Repairs(open={record.nonce: record for record in records})
    _close_gaps(turn, snapshot, highest, memory, repairs)
    # Words about a nonce that is settled hold nothing up any more.
    memory.settle(repairs.open)
    unsent = [record for record in repairs.open.values() if _not_with_a_node(record, snapshot, memory)]
    stale = [record for record in _stale(turn.context, snapshot, memory, repairs) if record not in unsent]
    repairs.outbox = _reprice(turn, snapshot, memory, repairs, [*unsent, *stale])
    return repairs


def _not_with_a_node(record: NonceRecord, snapshot: ChainSnapshot, memory: Memory) -> bool:
    """Whether these bytes were never taken: not sent, or refused, and a block has passed that may have changed that."""
    refusal = memory.refused.get(record.nonce)
    return record.sent_block is None if refusal is None else refusal.at != snapshot.head


# -- gaps --------------------------------------------------------------------------------------------------------------


def _close_gaps(turn: Turn, snapshot: ChainSnapshot, highest: Nonce | None, memory: Memory, repairs: Repairs) -> None:
    if highest is None:
        return
    holes = [Nonce(nonce) for nonce in range(snapshot.count, highest + 1) if nonce not in repairs.open]
    unknown: list[Nonce] = []
    intents: list[IntentMove] = []
    nonces: list[NonceMove] = []
    for nonce in holes:
        record = turn.context.store.record(turn.context.lane, nonce)
        if record is None:
            unknown.append(nonce)
            continue
        # A reorg deeper than finality, or a node behind: these bytes belong into the pool again.
        back = Unmined((nonce,))
        intents.append(IntentMove(record.intents, IntentState.SENT))
        nonces.append(back)
        repairs.open[nonce] = apply(record, back)
    if nonces:
        wallet = turn.context.lane.wallet
        log.warning("Final nonces are open again.", action="lane_reopened", wallet=wallet, nonces=len(nonces))
        turn.context.store.move(turn.lease, intents, nonces)
    _fill(turn, snapshot, unknown, memory, repairs)


def _fill(turn: Turn, snapshot: ChainSnapshot, unknown: Sequence[Nonce], memory: Memory, repairs: Repairs) -> None:
    memory.gaps = {nonce: memory.gaps.get(nonce, snapshot.head) for nonce in unknown}
    due = [nonce for nonce, first in memory.gaps.items() if snapshot.head - first >= turn.context.policy.gap_looks]
    repairs.open.update((record.nonce, record) for record in fill(turn, snapshot, due, memory))


def fill(turn: Turn, snapshot: ChainSnapshot, nonces: Sequence[Nonce], memory: Memory) -> list[NonceRecord]:
    """Claim exactly these nonces for 0-value self-transfers; the caller sends them."""
    if not nonces:
        return []
    context = turn.context
    fees = quote(context.policy.fees, snapshot.market)
    wallet, chain_id = context.lane.wallet, context.lane.chain_id
    gas = transfer_gas(context, memory)
    fillers = [to_self(wallet, chain_id, nonce, fees, Purpose.YIELD, "fills a gap", gas=gas) for nonce in nonces]
    records = [
        NonceRecord(
            lane=context.lane,
            nonce=nonce,
            intents=(),
            to=Contract(wallet),
            data="0x",
            gas=gas,
            attempts=(attempt,),
            created_at=context.clock(),
        )
        for nonce, attempt in zip(nonces, context.signer.sign(fillers), strict=True)
    ]
    turn.keep()
    context.store.claim(turn.lease, records)
    log.warning("Gap filled.", action="lane_gap_filled", wallet=wallet, nonces=list(nonces))
    return records


# -- timeouts ----------------------------------------------------------------------------------------------------------


def _stale(context: RunContext, snapshot: ChainSnapshot, memory: Memory, repairs: Repairs) -> list[NonceRecord]:
    """Bytes to send again because the lowest nonce is not being mined."""
    if not repairs.open:
        return []
    lowest = repairs.open[min(repairs.open)]
    waited = snapshot.head - max(memory.since, lowest.sent_block or memory.since)
    if lowest.sent_block is not None and waited < context.policy.rebroadcast_after:
        return []
    again = [
        record
        for _, record in sorted(repairs.open.items())
        if record.sent_block is not None and snapshot.head - record.sent_block >= context.policy.rebroadcast_after
    ]
    if lowest.sent_block is not None and waited < _SURE_BLOCKS:
        again = again[:_PROBE]
    if again:
        LANE_REBROADCAST.inc(len(again))
        log.info(
            "Open transactions sent again.",
            action="lane_rebroadcast",
            wallet=context.lane.wallet,
            nonce=lowest.nonce,
            transactions=len(again),
        )
    return again


def _reprice(
    turn: Turn, snapshot: ChainSnapshot, memory: Memory, repairs: Repairs, outbox: list[NonceRecord]
) -> list[NonceRecord]:
    """The outbox with new attempts where the old ones cannot succeed."""
    lowest = repairs.open.get(snapshot.count)
    if lowest is None:
        # Nothing waits: the timeout of what is sent next begins now.
        memory.since = snapshot.head
    wanted = _others(turn.context, snapshot, memory, repairs, lowest)
    # Once a head: the base fee that makes the next price right is only known with the next block.
    if lowest is not None and memory.bumped < snapshot.head and not any(item.nonce == lowest.nonce for item in wanted):
        bumped = _bump_if_due(turn.context, snapshot, memory, lowest)
        if bumped is not None:
            wanted.append(bumped)
            memory.bumped = snapshot.head
    if not wanted:
        return outbox
    fresh: dict[Nonce, NonceRecord] = {}
    moves: list[NonceMove] = []
    for item, attempt in zip(wanted, turn.context.signer.sign(wanted), strict=True):
        move = Repriced(item.nonce, attempt)
        moves.append(move)
        fresh[item.nonce] = apply(repairs.open[item.nonce], move)
        log.info(
            "Another attempt signed.",
            action="lane_bumped" if item.purpose is Purpose.CALL else "lane_gives_way",
            wallet=turn.context.lane.wallet,
            nonce=item.nonce,
            tx=attempt.tx_hash,
            max_fee=item.fees.max_fee,
            gas=item.gas,
            note=item.note,
        )
    turn.keep()
    turn.context.store.move(turn.lease, (), moves)
    repairs.open.update(fresh)
    return [*(record for record in outbox if record.nonce not in fresh), *fresh.values()]


def _others(
    context: RunContext, snapshot: ChainSnapshot, memory: Memory, repairs: Repairs, lowest: NonceRecord | None
) -> list[Unsigned]:
    """Attempts in place of bytes that no node will take, or that nobody wants any more."""
    todo = remedies(context, memory, list(repairs.open.values()), lowest)
    gas = more(context, memory, [repairs.open[nonce] for nonce, (what, _) in todo.items() if what is Remedy.MORE_GAS])
    wanted: list[Unsigned] = []
    for nonce, record in repairs.open.items():
        note = ""
        if record.newest.purpose is Purpose.CALL and record.released and not record.intents:
            # It was spent without them and a reorg has opened it again; by now they may be elsewhere.
            note = "its actions have left this nonce"
        elif nonce in gas:
            wanted.append(again(context, record, record.newest.fees, gas[nonce]))
        elif nonce in todo and todo[nonce][0] is Remedy.NOOP:
            note = f"no node takes it: {todo[nonce][1]}"
        if note:
            fees = bump(context.policy.fees, snapshot.market, record.newest.fees) or quote(
                context.policy.fees, snapshot.market
            )
            limit = transfer_gas(context, memory)
            wanted.append(
                to_self(context.lane.wallet, context.lane.chain_id, nonce, fees, Purpose.YIELD, note, gas=limit)
            )
    return wanted


def _bump_if_due(context: RunContext, snapshot: ChainSnapshot, memory: Memory, lowest: NonceRecord) -> Unsigned | None:
    """The lowest nonce's call at a higher price, if its price is what holds it, or a pool that does not let it go."""
    paid = lowest.newest.fees
    refusal = memory.refused.get(lowest.nonce)
    refused = refusal is not None and REACTIONS[refusal.kind].reprice
    cheap = (
        too_low(paid, snapshot.market.base_fee) and lowest.sent_block is not None and lowest.sent_block < snapshot.head
    )
    if not refused and not cheap:
        waited = snapshot.head - max(memory.since, memory.bumped)
        if lowest.sent_block is None or waited < context.policy.bump_after:
            return None
        if waited < _stuck_after(context, lowest) and not _below_market(context, snapshot, lowest):
            return None
    fees = bump(context.policy.fees, snapshot.market, paid)
    if fees is None:
        log.warning(
            "Cannot pay more for the lowest nonce.",
            action="lane_at_ceiling",
            wallet=context.lane.wallet,
            nonce=lowest.nonce,
            max_fee=paid.max_fee,
        )
        return None
    return again(context, lowest, fees)


def _stuck_after(context: RunContext, lowest: NonceRecord) -> int:
    """Blocks until it is replaced though its price is right: twice as long after each attempt, for it may be in vain.

    A pool can hold a transaction back for good. anvil does it to one that came while a reorg had taken its predecessor;
    sent again it is "already known", and only a replacement of the same nonce sets it and its followers free.
    """
    return context.policy.stuck_after << min(len(lowest.attempts) - 1, _MOST_DOUBLINGS)


def again(context: RunContext, record: NonceRecord, fees: Fees, gas: int | None = None) -> Unsigned:
    """What the newest attempt does, at another price or with another gas limit."""
    newest, limit = record.newest, record.gas_limit if gas is None else gas
    lane, nonce = context.lane, record.nonce
    if newest.purpose is not Purpose.CALL:
        return to_self(lane.wallet, lane.chain_id, nonce, fees, newest.purpose, newest.note, gas=limit)
    return Unsigned(lane.chain_id, nonce, record.to, record.data, limit, fees, value=record.value)


def _below_market(context: RunContext, snapshot: ChainSnapshot, lowest: NonceRecord) -> bool:
    """Whether recent blocks paid higher tips than ours; if not, the problem is not the price."""
    if snapshot.market.base_fee is None:
        return lowest.newest.fees.max_fee < snapshot.market.tip
    (history,) = context.rpc.batch([("eth_feeHistory", (hex(_MARKET_BLOCKS), "latest", [_MARKET_PERCENTILE]))])
    paid = heard(history, lambda body: sorted(int(reward[0], 16) for reward in body["reward"]))
    if not isinstance(paid, Known) or not paid.value:
        return True
    ours = min(lowest.newest.fees.tip, lowest.newest.fees.max_fee - snapshot.market.base_fee)
    return ours < paid.value[len(paid.value) // 2]
