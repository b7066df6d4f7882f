"""What to do about nonces that stand still: send again, raise the price, give way, fill a gap.

    a block without the lowest open nonce      ─► all open bytes again: whatever was dropped is back
    base fee above its fee cap                 ─► dearer attempt of the lowest nonce
    not mined for 4 blocks, price below market ─► dearer attempt of the lowest nonce
    refused for good, or left by its intents   ─► 0-value transfer to self at the same nonce
    refused for its gas limit                  ─► the same call with more gas
    nonce below the highest without a record   ─► after a second look, 0-value transfer to self

Only the lowest nonce is ever repriced: those above cannot be mined before it whatever they pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import Fees, NonceMove, NonceRecord, Purpose, Repriced, Unmined, apply
from chain.lane.phases.context import Desk, Memory, Turn
from chain.lane.phases.snapshot import Look
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
#: Most doublings of the patience with what is stuck: 64 times 6 blocks.
_MOST_DOUBLINGS = 6


@dataclass(slots=True)
class Repairs:
    """What to send again, and the records as they stand then."""

    outbox: list[NonceRecord] = field(default_factory=list)
    #: All OPEN records by nonce.
    open: dict[Nonce, NonceRecord] = field(default_factory=dict)


def repair(turn: Turn, look: Look, records: Sequence[NonceRecord], highest: Nonce | None, memory: Memory) -> Repairs:
    """Find and store repairs; sending is up to the caller. `records`: all OPEN ones. Raises LeaseLost."""
    repairs = Repairs(open={record.nonce: record for record in records})
    _close_gaps(turn, look, highest, memory, repairs)
    # Words about a nonce that is settled hold nothing up any more.
    memory.settle(repairs.open)
    unsent = [record for record in repairs.open.values() if _not_with_a_node(record, look, memory)]
    stale = [record for record in _stale(turn.desk, look, memory, repairs) if record not in unsent]
    repairs.outbox = _reprice(turn, look, memory, repairs, [*unsent, *stale])
    return repairs


def _not_with_a_node(record: NonceRecord, look: Look, memory: Memory) -> bool:
    """Whether these bytes were never taken: not sent, or refused, and a block has passed that may have changed that."""
    refusal = memory.refused.get(record.nonce)
    return record.sent_block is None if refusal is None else refusal.at != look.head


# -- gaps --------------------------------------------------------------------------------------------------------------


def _close_gaps(turn: Turn, look: Look, highest: Nonce | None, memory: Memory, repairs: Repairs) -> None:
    if highest is None:
        return
    holes = [Nonce(nonce) for nonce in range(look.count, highest + 1) if nonce not in repairs.open]
    unknown: list[Nonce] = []
    intents: list[IntentMove] = []
    nonces: list[NonceMove] = []
    for nonce in holes:
        record = turn.desk.store.record(turn.desk.lane, nonce)
        if record is None:
            unknown.append(nonce)
            continue
        # A reorg deeper than finality, or a node behind: these bytes belong into the pool again.
        back = Unmined((nonce,))
        intents.append(IntentMove(record.intents, IntentState.SENT))
        nonces.append(back)
        repairs.open[nonce] = apply(record, back)
    if nonces:
        wallet = turn.desk.lane.wallet
        log.warning("Final nonces are open again.", action="lane_reopened", wallet=wallet, nonces=len(nonces))
        turn.desk.store.move(turn.lease, intents, nonces)
    _fill(turn, look, unknown, memory, repairs)


def _fill(turn: Turn, look: Look, unknown: Sequence[Nonce], memory: Memory, repairs: Repairs) -> None:
    memory.gaps = {nonce: memory.gaps.get(nonce, look.head) for nonce in unknown}
    due = [nonce for nonce, first in memory.gaps.items() if look.head - first >= turn.desk.policy.gap_looks]
    repairs.open.update((record.nonce, record) for record in fill(turn, look, due, memory))


def fill(turn: Turn, look: Look, nonces: Sequence[Nonce], memory: Memory) -> list[NonceRecord]:
    """Claim exactly these nonces for transfers of nothing to oneself; sending them is up to the caller."""
    if not nonces:
        return []
    desk = turn.desk
    fees = quote(desk.policy.fees, look.market)
    wallet, chain_id = desk.lane.wallet, desk.lane.chain_id
    gas = transfer_gas(desk, memory)
    fillers = [to_self(wallet, chain_id, nonce, fees, Purpose.YIELD, "fills a gap", gas=gas) for nonce in nonces]
    records = [
        NonceRecord(
            lane=desk.lane,
            nonce=nonce,
            intents=(),
            to=Contract(wallet),
            data="0x",
            gas=gas,
            attempts=(attempt,),
            created_at=desk.clock(),
        )
        for nonce, attempt in zip(nonces, desk.signer.sign(fillers), strict=True)
    ]
    turn.keep()
    desk.store.claim(turn.lease, records)
    log.warning("Gap filled.", action="lane_gap_filled", wallet=wallet, nonces=list(nonces))
    return records


# -- patience ----------------------------------------------------------------------------------------------------------


def _stale(desk: Desk, look: Look, memory: Memory, repairs: Repairs) -> list[NonceRecord]:
    """Bytes to send again because the lowest nonce is not being mined."""
    if not repairs.open:
        return []
    lowest = repairs.open[min(repairs.open)]
    waited = look.head - max(memory.since, lowest.sent_block or memory.since)
    if lowest.sent_block is not None and waited < desk.policy.rebroadcast_after:
        return []
    again = [
        record
        for _, record in sorted(repairs.open.items())
        if record.sent_block is not None and look.head - record.sent_block >= desk.policy.rebroadcast_after
    ]
    if lowest.sent_block is not None and waited < _SURE_BLOCKS:
        again = again[:_PROBE]
    if again:
        LANE_REBROADCAST.inc(len(again))
        log.info(
            "Open transactions sent again.",
            action="lane_rebroadcast",
            wallet=desk.lane.wallet,
            nonce=lowest.nonce,
            transactions=len(again),
        )
    return again


def _reprice(turn: Turn, look: Look, memory: Memory, repairs: Repairs, outbox: list[NonceRecord]) -> list[NonceRecord]:
    """The outbox with new attempts where the old ones cannot succeed."""
    lowest = repairs.open.get(look.count)
    if lowest is None:
        # Nothing waits: patience with what is sent next begins now.
        memory.since = look.head
    wanted = _others(turn.desk, look, memory, repairs, lowest)
    # Once a head: the base fee that makes the next price right is only known with the next block.
    if lowest is not None and memory.bumped < look.head and not any(item.nonce == lowest.nonce for item in wanted):
        dearer = _dearer(turn.desk, look, memory, lowest)
        if dearer is not None:
            wanted.append(dearer)
            memory.bumped = look.head
    if not wanted:
        return outbox
    fresh: dict[Nonce, NonceRecord] = {}
    moves: list[NonceMove] = []
    for item, attempt in zip(wanted, turn.desk.signer.sign(wanted), strict=True):
        move = Repriced(item.nonce, attempt)
        moves.append(move)
        fresh[item.nonce] = apply(repairs.open[item.nonce], move)
        log.info(
            "Another attempt signed.",
            action="lane_bumped" if item.purpose is Purpose.CALL else "lane_gives_way",
            wallet=turn.desk.lane.wallet,
            nonce=item.nonce,
            tx=attempt.tx_hash,
            max_fee=item.fees.max_fee,
            gas=item.gas,
            note=item.note,
        )
    turn.keep()
    turn.desk.store.move(turn.lease, (), moves)
    repairs.open.update(fresh)
    return [*(record for record in outbox if record.nonce not in fresh), *fresh.values()]


def _others(desk: Desk, look: Look, memory: Memory, repairs: Repairs, lowest: NonceRecord | None) -> list[Unsigned]:
    """Attempts in place of bytes that no node will take, or that nobody wants any more."""
    todo = remedies(desk, memory, list(repairs.open.values()), lowest)
    gas = more(desk, memory, [repairs.open[nonce] for nonce, (what, _) in todo.items() if what is Remedy.MORE_GAS])
    wanted: list[Unsigned] = []
    for nonce, record in repairs.open.items():
        note = ""
        if record.newest.purpose is Purpose.CALL and record.released and not record.intents:
            # It was spent without them and a reorg has opened it again; by now they may be elsewhere.
            note = "its actions have left this nonce"
        elif nonce in gas:
            wanted.append(again(desk, record, record.newest.fees, gas[nonce]))
        elif nonce in todo and todo[nonce][0] is Remedy.GIVE_WAY:
            note = f"no node takes it: {todo[nonce][1]}"
        if note:
            fees = bump(desk.policy.fees, look.market, record.newest.fees) or quote(desk.policy.fees, look.market)
            limit = transfer_gas(desk, memory)
            wanted.append(to_self(desk.lane.wallet, desk.lane.chain_id, nonce, fees, Purpose.YIELD, note, gas=limit))
    return wanted


def _dearer(desk: Desk, look: Look, memory: Memory, lowest: NonceRecord) -> Unsigned | None:
    """The lowest nonce's call at a higher price, if its price is what holds it, or a pool that does not let it go."""
    paid = lowest.newest.fees
    refusal = memory.refused.get(lowest.nonce)
    refused = refusal is not None and REACTIONS[refusal.kind].reprice
    cheap = too_low(paid, look.market.base_fee) and lowest.sent_block is not None and lowest.sent_block < look.head
    if not refused and not cheap:
        waited = look.head - max(memory.since, memory.bumped)
        if lowest.sent_block is None or waited < desk.policy.bump_after:
            return None
        if waited < _stuck_after(desk, lowest) and not _below_market(desk, look, lowest):
            return None
    fees = bump(desk.policy.fees, look.market, paid)
    if fees is None:
        log.warning(
            "Cannot pay more for the lowest nonce.",
            action="lane_at_ceiling",
            wallet=desk.lane.wallet,
            nonce=lowest.nonce,
            max_fee=paid.max_fee,
        )
        return None
    return again(desk, lowest, fees)


def _stuck_after(desk: Desk, lowest: NonceRecord) -> int:
    """Blocks until it is replaced though its price is right: twice as long after each attempt, for it may be in vain.

    A pool can hold a transaction back for good. anvil does it to one that came while a reorg had taken its predecessor;
    sent again it is "already known", and only a replacement of the same nonce sets it and its followers free.
    """
    return desk.policy.stuck_after << min(len(lowest.attempts) - 1, _MOST_DOUBLINGS)


def again(desk: Desk, record: NonceRecord, fees: Fees, gas: int | None = None) -> Unsigned:
    """What the newest attempt does, at another price or with another gas limit."""
    newest, limit = record.newest, record.gas_limit if gas is None else gas
    lane, nonce = desk.lane, record.nonce
    if newest.purpose is not Purpose.CALL:
        return to_self(lane.wallet, lane.chain_id, nonce, fees, newest.purpose, newest.note, gas=limit)
    return Unsigned(lane.chain_id, nonce, record.to, record.data, limit, fees, value=record.value)


def _below_market(desk: Desk, look: Look, lowest: NonceRecord) -> bool:
    """Whether recent blocks paid higher tips than ours; if not, the problem is not the price."""
    if look.market.base_fee is None:
        return lowest.newest.fees.max_fee < look.market.tip
    (history,) = desk.rpc.batch([("eth_feeHistory", (hex(_MARKET_BLOCKS), "latest", [_MARKET_PERCENTILE]))])
    paid = heard(history, lambda body: sorted(int(reward[0], 16) for reward in body["reward"]))
    if not isinstance(paid, Known) or not paid.value:
        return True
    ours = min(lowest.newest.fees.tip, lowest.newest.fees.max_fee - look.market.base_fee)
    return ours < paid.value[len(paid.value) // 2]
