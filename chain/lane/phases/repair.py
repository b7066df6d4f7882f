"""What to do about nonces that no block takes: send again, raise the fee, replace by a no-op, fill a gap.

    a block without the lowest open nonce      ─► all open bytes again: whatever was dropped is back
    base fee above its fee cap                 ─► fee bump of the lowest nonce
    not mined for 4 blocks, price below market ─► fee bump of the lowest nonce
    … and what waits behind it saves a stake   ─► fee bump above the ceiling, or 0-value transfer to self
    refused for good, or left by its intents   ─► 0-value transfer to self at the same nonce
    not taken by a busy node, or for too little
    money in the wallet                        ─► the same bytes at the next head, at the same price
    refused for its gas limit                  ─► the same call with more gas
    nonce below the highest without a record   ─► at the next head, 0-value transfer to self

Only the lowest nonce is ever repriced: those above cannot be mined before it whatever they pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from chain.lane.model.intent import IntentState, method_of
from chain.lane.model.nonce import MAKES_ROOM, Fees, NonceMove, NonceRecord, Purpose, Repriced, Unmined, apply
from chain.lane.phases.context import LaneMemory, LeasedRun, RunContext
from chain.lane.phases.snapshot import ChainSnapshot
from chain.lane.rules.fees import bump, ceiling_worth, quote, too_low
from chain.lane.rules.gas import raise_gas_limits, transfer_gas
from chain.lane.rules.refusals import Remedy, remedies
from chain.lane.rules.send_errors import REACTIONS
from chain.lane.signer import Unsigned, to_self
from chain.lane.store.port import IntentMove
from chain.rpc.answers import Known, decode_reply
from config.metrics import LANE_REBROADCAST, LANE_REPLACED
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
    run: LeasedRun, snapshot: ChainSnapshot, records: Sequence[NonceRecord], highest: Nonce | None, memory: LaneMemory
) -> Repairs:
    """Find what open nonces need (gap fillers, rebroadcasts, replacements) and store it; the caller sends the outbox.

    `records`: all OPEN ones. `highest`: highest nonce ever claimed. Raises LeaseLost.
    """
    repairs = Repairs(open={record.nonce: record for record in records})
    _close_gaps(run, snapshot, highest, memory, repairs)
    # Words about a nonce that is settled hold nothing up any more.
    memory.keep_refusals_of(repairs.open)
    unsent = [record for record in repairs.open.values() if _needs_sending(record, snapshot, memory)]
    stale = [record for record in _find_stale(run.context, snapshot, memory, repairs) if record not in unsent]
    repairs.outbox = _replace_attempts(run, snapshot, memory, repairs, [*unsent, *stale])
    return repairs


def _needs_sending(record: NonceRecord, snapshot: ChainSnapshot, memory: LaneMemory) -> bool:
    """Whether no node has accepted the newest attempt: it is not sent yet, or was refused at an earlier head."""
    refusal = memory.refusal_of_newest(record)
    return record.sent_block is None if refusal is None else refusal.at != snapshot.head


# -- gaps --------------------------------------------------------------------------------------------------------------


def _close_gaps(
    run: LeasedRun, snapshot: ChainSnapshot, highest: Nonce | None, memory: LaneMemory, repairs: Repairs
) -> None:
    """Reopen or fill each unspent nonce below `highest` that is not open: the nonces above it could not be mined."""
    if highest is None:
        return
    holes = [Nonce(nonce) for nonce in range(snapshot.count, highest + 1) if nonce not in repairs.open]
    unknown: list[Nonce] = []
    intents: list[IntentMove] = []
    nonces: list[NonceMove] = []
    for nonce in holes:
        record = run.context.store.record(run.context.lane, nonce)
        if record is None:
            unknown.append(nonce)
            continue
        # A reorg deeper than finality, or a node behind: these bytes belong into the pool again.
        back = Unmined((nonce,))
        intents.append(IntentMove(record.intents, IntentState.SENT))
        nonces.append(back)
        repairs.open[nonce] = apply(record, back)
    if nonces:
        wallet = run.context.lane.wallet
        log.warning("Final nonces are open again.", action="lane_reopened", wallet=wallet, nonces=len(nonces))
        run.context.store.move(run.lease, intents, nonces)
    _fill_due_gaps(run, snapshot, unknown, memory, repairs)


def _fill_due_gaps(
    run: LeasedRun, snapshot: ChainSnapshot, unknown: Sequence[Nonce], memory: LaneMemory, repairs: Repairs
) -> None:
    """Fill gaps that were seen for `gap_looks` blocks; a younger gap may only be a node that lags."""
    memory.gaps = {nonce: memory.gaps.get(nonce, snapshot.head) for nonce in unknown}
    due = [nonce for nonce, first in memory.gaps.items() if snapshot.head - first >= run.context.policy.gap_looks]
    repairs.open.update((record.nonce, record) for record in fill_nonces(run, snapshot, due, memory))


def fill_nonces(
    run: LeasedRun, snapshot: ChainSnapshot, nonces: Sequence[Nonce], memory: LaneMemory
) -> list[NonceRecord]:
    """Claim exactly these nonces for no-op transactions (0-value self-transfers); the caller sends them."""
    if not nonces:
        return []
    context = run.context
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
    run.keep_lease()
    context.store.claim(run.lease, records)
    log.warning("Gap filled.", action="lane_gap_filled", wallet=wallet, nonces=list(nonces))
    return records


# -- timeouts ----------------------------------------------------------------------------------------------------------


def _find_stale(
    context: RunContext, snapshot: ChainSnapshot, memory: LaneMemory, repairs: Repairs
) -> list[NonceRecord]:
    """Records to send again because the lowest open nonce was not mined for `rebroadcast_after` blocks."""
    if not repairs.open:
        return []
    lowest = repairs.open[min(repairs.open)]
    waited = snapshot.head - max(memory.since, lowest.sent_block or memory.since)
    if lowest.sent_block is not None and waited < context.policy.rebroadcast_after:
        return []
    overdue = [
        record
        for _, record in sorted(repairs.open.items())
        if record.sent_block is not None and snapshot.head - record.sent_block >= context.policy.rebroadcast_after
    ]
    if lowest.sent_block is not None and waited < _SURE_BLOCKS:
        overdue = overdue[:_PROBE]
    if overdue:
        LANE_REBROADCAST.inc(len(overdue))
        log.info(
            "Open transactions sent again.",
            action="lane_rebroadcast",
            wallet=context.lane.wallet,
            nonce=lowest.nonce,
            transactions=len(overdue),
        )
    return overdue


def _replace_attempts(
    run: LeasedRun, snapshot: ChainSnapshot, memory: LaneMemory, repairs: Repairs, outbox: list[NonceRecord]
) -> list[NonceRecord]:
    """The outbox, with a new signed and stored attempt for each transaction whose present one cannot succeed."""
    lowest = repairs.open.get(snapshot.count)
    if lowest is None or lowest.sent_block is None:
        # Nothing waits for a block: the timeout of what is sent next begins now.
        memory.since = snapshot.head
    wanted = _replacements(run.context, snapshot, memory, repairs, lowest)
    # Once a head: the base fee that makes the next price right is only known with the next block.
    if lowest is not None and memory.bumped < snapshot.head and not any(item.nonce == lowest.nonce for item in wanted):
        bumped = _bump_if_due(run.context, snapshot, memory, lowest, repairs)
        if bumped is not None:
            wanted.append(bumped)
            memory.bumped = snapshot.head
    if not wanted:
        return outbox
    fresh: dict[Nonce, NonceRecord] = {}
    moves: list[NonceMove] = []
    for item, attempt in zip(wanted, run.context.signer.sign(wanted), strict=True):
        move = Repriced(item.nonce, attempt)
        moves.append(move)
        fresh[item.nonce] = apply(repairs.open[item.nonce], move)
        log.info(
            "Another attempt signed.",
            action="lane_bumped" if item.purpose is Purpose.CALL else "lane_noop",
            wallet=run.context.lane.wallet,
            nonce=item.nonce,
            tx=attempt.tx_hash,
            max_fee=item.fees.max_fee,
            gas=item.gas,
            note=item.note,
        )
    run.keep_lease()
    run.context.store.move(run.lease, (), moves)
    for item in wanted:
        LANE_REPLACED.labels(item.purpose.value).inc()
    repairs.open.update(fresh)
    return [*(record for record in outbox if record.nonce not in fresh), *fresh.values()]


def _replacements(
    context: RunContext, snapshot: ChainSnapshot, memory: LaneMemory, repairs: Repairs, lowest: NonceRecord | None
) -> list[Unsigned]:
    """Unsigned replacements of transactions that no node accepts, or whose intents have left the nonce."""
    todo = remedies(context, memory, list(repairs.open.values()), lowest)
    gas = raise_gas_limits(
        context, memory, [repairs.open[nonce] for nonce, (what, _) in todo.items() if what is Remedy.MORE_GAS]
    )
    wanted: list[Unsigned] = []
    for nonce, record in repairs.open.items():
        note = ""
        if record.newest.purpose is Purpose.CALL and record.released and not record.intents:
            # It was spent without them and a reorg has opened it again; by now they may be elsewhere.
            note = "its actions have left this nonce"
        elif nonce in gas:
            wanted.append(same_call(context, record, record.newest.fees, gas[nonce]))
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


def _bump_if_due(
    context: RunContext, snapshot: ChainSnapshot, memory: LaneMemory, lowest: NonceRecord, repairs: Repairs
) -> Unsigned | None:
    """A fee bump of the lowest open nonce, if its fee is too low or it has been stuck for too long; else None."""
    paid = lowest.newest.fees
    # Not the refusal of an older attempt: whether a node takes the newest one's price is to be seen first.
    refusal = memory.refusal_of_newest(lowest)
    reaction = None if refusal is None else REACTIONS[refusal.kind]
    if reaction is not None and reaction.no_price:
        return None
    refused = reaction is not None and reaction.reprice
    cheap = too_low(paid, snapshot.base_fee) and lowest.sent_block is not None and lowest.sent_block < snapshot.head
    if not refused and not cheap:
        waited = snapshot.head - max(memory.since, memory.bumped)
        if lowest.sent_block is None or waited < context.policy.bump_after:
            return None
        if waited < _stuck_blocks(context, lowest) and not _below_market(context, snapshot, lowest):
            return None
    fees = bump(context.policy.fees, snapshot.market, paid)
    if context.policy.uncapped and (fees is None or too_low(fees, snapshot.base_fee)):
        raised = _raise_for_line(context, snapshot, memory, lowest, repairs)
        if raised is not None:
            return raised
    if fees is None:
        log.warning(
            "Cannot pay more for the lowest nonce.",
            action="lane_at_ceiling",
            wallet=context.lane.wallet,
            nonce=lowest.nonce,
            max_fee=paid.max_fee,
        )
        return None
    return same_call(context, lowest, fees)


def _raise_for_line(
    context: RunContext, snapshot: ChainSnapshot, memory: LaneMemory, lowest: NonceRecord, repairs: Repairs
) -> Unsigned | None:
    """A replacement of the lowest open nonce at fees above the ceiling, if the intents of all open nonces together are
    worth it; else None.

    Where they are not worth it with their own calls, calls of capped methods are replaced by no-ops, which use less
    gas: their intents are judged again once the no-op is mined.
    """
    uncapped = context.policy.uncapped
    records = [record for _, record in sorted(repairs.open.items())]
    worth = {
        item.key: context.worth(item)
        for item in context.store.intents([key for each in records for key in each.intents])
    }
    line = [(each, sum(worth.get(key, 0) for key in each.intents)) for each in records]
    fees = _included(context, snapshot, lowest, [(each.gas_limit, lost) for each, lost in line])
    if fees is not None:
        return same_call(context, lowest, fees)
    if not any(worth.values()) or method_of(lowest.intents) in uncapped:
        return None
    least = transfer_gas(context, memory)
    cheaper = [
        (each.gas_limit if method_of(each.intents) in uncapped else min(least, each.gas_limit), lost)
        for each, lost in line
    ]
    fees = _included(context, snapshot, lowest, cheaper)
    if fees is None:
        return None
    wallet, chain_id = context.lane.wallet, context.lane.chain_id
    return to_self(wallet, chain_id, lowest.nonce, fees, Purpose.YIELD, MAKES_ROOM, gas=least)


def _included(
    context: RunContext, snapshot: ChainSnapshot, lowest: NonceRecord, line: Sequence[tuple[int, int]]
) -> Fees | None:
    """The fees at which a block can include the lowest nonce, if `line` is worth them; else None. `line`: (gas limit,
    wei lost without it) of each open nonce, lowest first.
    """
    fees = bump(ceiling_worth(context.policy.fees, line), snapshot.market, lowest.newest.fees)
    return None if fees is None or too_low(fees, snapshot.base_fee) else fees


def _stuck_blocks(context: RunContext, lowest: NonceRecord) -> int:
    """Blocks until the lowest nonce is replaced although its fee is right: twice as many after each attempt.

    A pool can hold a transaction back for good. anvil does it to one that came while a reorg had taken its predecessor;
    sent again it is "already known", and only a replacement of the same nonce sets it and its followers free.
    """
    return context.policy.stuck_after << min(len(lowest.attempts) - 1, _MOST_DOUBLINGS)


def same_call(context: RunContext, record: NonceRecord, fees: Fees, gas: int | None = None) -> Unsigned:
    """The transaction of the record's newest attempt, unsigned, with other fees or another gas limit: a resend or a fee
    bump.

    A no-op stays a no-op. `gas`: None keeps the record's limit.
    """
    newest, limit = record.newest, record.gas_limit if gas is None else gas
    lane, nonce = context.lane, record.nonce
    if newest.purpose is not Purpose.CALL:
        return to_self(lane.wallet, lane.chain_id, nonce, fees, newest.purpose, newest.note, gas=limit)
    return Unsigned(lane.chain_id, nonce, record.to, record.data, limit, fees, value=record.value)


def _below_market(context: RunContext, snapshot: ChainSnapshot, lowest: NonceRecord) -> bool:
    """Whether recent blocks paid higher tips than this transaction does; if not, a fee bump would not help."""
    if snapshot.base_fee is None:
        return lowest.newest.fees.max_fee < snapshot.market.tip
    (history,) = context.rpc.batch([("eth_feeHistory", (hex(_MARKET_BLOCKS), "latest", [_MARKET_PERCENTILE]))])
    paid = decode_reply(history, lambda body: sorted(int(reward[0], 16) for reward in body["reward"]))
    if not isinstance(paid, Known) or not paid.value:
        return True
    ours = min(lowest.newest.fees.tip, lowest.newest.fees.max_fee - snapshot.base_fee)
    return ours < paid.value[len(paid.value) // 2]
