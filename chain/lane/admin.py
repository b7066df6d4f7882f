"""What an operator can do to a lane (`sluice tx …`). Each takes the lane's lease for a moment, like a run.

Nothing here is needed in daily life: the lane repairs itself, except after a foreign nonce, which a person must judge.
What spends gas has a function that names the price beforehand: `quote_bump`, `quote_cancel`, `quote_gaps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.nonce import Disowned, Fees, NonceRecord, NonceState, Purpose, Repriced, apply
from chain.lane.phases.context import LaneMemory, LeasedRun, RunContext
from chain.lane.phases.proof import find_spender, receipts
from chain.lane.phases.release import after_release
from chain.lane.phases.repair import fill_nonces, same_call
from chain.lane.phases.send import broadcast, left_today, offer_for, why_held
from chain.lane.phases.snapshot import ChainSnapshot, take_snapshot
from chain.lane.rules.fees import bump as bumped_fees
from chain.lane.rules.fees import quote
from chain.lane.rules.gas import transfer_gas
from chain.lane.run import Lane
from chain.lane.signer import Unsigned, to_self
from chain.lane.store.port import IntentMove
from chain.rpc.answers import Known, Unknown, decode_reply
from protocol.errors import BadInput, BadMessage, LeaseLost
from protocol.types import BlockNumber, Nonce, TxHash, Wei

log = structlog.get_logger(__name__)

#: Newest nonces whose transactions are searched by hash.
_RECORDS = 2000
_CANCELLED = "cancelled by an operator"


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """State of a lane for `sluice tx ls`: nonces, queue, and why the first one waits."""

    head: BlockNumber
    #: Mined transactions of the wallet.
    count: Nonce
    #: Next nonce that will be claimed.
    next_nonce: Nonce
    balance: Wei
    open: tuple[NonceRecord, ...]
    #: Nonces between `count` and `next_nonce` without an open record.
    gaps: tuple[Nonce, ...]
    queued: int
    #: Why the lane is halted until an operator decides; None if it is not.
    halted: str | None
    #: What the lane waits for and cannot repair, as far as its last run knew.
    waiting: str | None
    why: str


@dataclass(frozen=True, slots=True)
class ReplacementPrice:
    """What transactions at these nonces would cost at most, in wei, before they are made."""

    nonces: tuple[Nonce, ...]
    fees: Fees
    #: Gas limit of each.
    gas: int

    @property
    def cost(self) -> Wei:
        """Gas limits times fee cap."""
        return Wei(len(self.nonces) * self.gas * self.fees.max_fee)


@dataclass(frozen=True, slots=True)
class Replaced:
    """What was done to a nonce."""

    record: NonceRecord
    #: The node's answer.
    answer: str


def status(lane: Lane) -> LaneStatus:
    """State of a lane for `sluice tx ls` and `/health`. Reads only; needs no lease. Raises RpcUnavailable."""
    context = lane.context
    seen = take_snapshot(context.rpc, context.lane.wallet, None)
    records = tuple(context.store.records(context.lane, (NonceState.OPEN,)))
    highest = context.store.highest_nonce(context.lane)
    next_nonce = max(seen.count, Nonce(0) if highest is None else Nonce(highest + 1))
    held = {record.nonce for record in records}
    gaps = tuple(Nonce(nonce) for nonce in range(seen.count, next_nonce) if nonce not in held)
    queued = context.store.count(context.lane, (IntentState.QUEUED,))
    halted, waiting = context.store.halted(context.lane), context.store.waiting(context.lane)
    why = halted or waiting or _why_nonce_waits(seen, records, gaps) or _why_queue_waits(context, seen, records, queued)
    return LaneStatus(seen.head, seen.count, next_nonce, seen.balance, records, gaps, queued, halted, waiting, why)


def nonce_of(lane: Lane, tx_hash: TxHash) -> Nonce | None:
    """The nonce of a transaction of the lane's wallet, also of one that was replaced; None if there is no such one.

    Looks at the newest records, and then asks the node. Raises RpcUnavailable.
    """
    context = lane.context
    for record in context.store.newest(context.lane, list(NonceState), _RECORDS, None):
        if any(attempt.tx_hash.lower() == tx_hash for attempt in record.attempts):
            return record.nonce
    match decode_reply(context.rpc.call("eth_getTransactionByHash", tx_hash), lambda body: body):
        case Known(body) if str(body["from"]).lower() == context.lane.wallet:
            return Nonce(int(body["nonce"], 16))
    return None


def _why_queue_waits(context: RunContext, seen: ChainSnapshot, records: tuple[NonceRecord, ...], queued: int) -> str:
    """What the oldest queued intent waits for, as a sentence; `status` shows it if nothing else explains why the lane
    waits.
    """
    oldest = context.store.queued(context.lane, 1)
    if not oldest:
        return "nothing waits"
    (verdict,) = context.readiness.check(oldest, seen.moment)
    reason = verdict.reason or _why_unpaid(context, seen, records, oldest[0]) or "goes with the next run"
    return f"{queued} in the queue, the oldest is {oldest[0].method} of {oldest[0].subject}: {reason}"


def _why_unpaid(context: RunContext, seen: ChainSnapshot, records: tuple[NonceRecord, ...], intent: Intent) -> str:
    """Why the wallet cannot pay for this intent's call now; empty if it can."""
    try:
        call = context.encoder.encode((intent,))
    except BadMessage as error:
        return str(error)
    group = ((intent,), call)
    need = call.gas * offer_for(context, group, seen.market).max_fee + call.value
    fees = sum(record.gas_limit * record.newest.fees.max_fee for record in records)
    left = seen.balance - fees - sum(record.value for record in records) - context.policy.keep_balance
    if left >= need:
        return why_held(context, group, seen.market, left_today(context, fees)) or ""
    return (
        f"the wallet cannot pay for it: up to {need} wei are needed, of its {seen.balance} wei {max(left, 0)} are "
        f"free. Send some to {context.lane.wallet}"
    )


def _why_nonce_waits(seen: ChainSnapshot, records: tuple[NonceRecord, ...], gaps: tuple[Nonce, ...]) -> str:
    """What the lowest open nonce waits for; empty if no nonce is open."""
    if gaps and gaps[0] == seen.count:
        return f"nonce {gaps[0]} has no transaction: a gap"
    lowest = next((record for record in records if record.nonce == seen.count), None)
    if lowest is None:
        return "open nonces wait for their receipts" if records else ""
    base_fee, paid = seen.base_fee, lowest.newest.fees.max_fee
    if base_fee is not None and paid < base_fee:
        return f"nonce {lowest.nonce} offers {paid} wei per gas, the base fee is {base_fee}"
    if lowest.sent_block is None:
        return f"nonce {lowest.nonce} has not been accepted by a node yet"
    return f"nonce {lowest.nonce} was sent at block {lowest.sent_block} and waits to be mined"


def quote_bump(lane: Lane, nonce: Nonce) -> ReplacementPrice:
    """What `bump` of this open nonce would cost.

    Raises BadInput if the nonce is not open or its fee is at the ceiling.
    """
    record = _open_record(lane.context, nonce)
    return ReplacementPrice((nonce,), _bumped_price(lane.context, _read_chain(lane.context), record), record.gas_limit)


def quote_cancel(lane: Lane, nonce: Nonce) -> ReplacementPrice:
    """What `cancel` of this open nonce would cost. Raises BadInput if the nonce is not open or its fee is at the
    ceiling.
    """
    return ReplacementPrice((nonce,), quote_bump(lane, nonce).fees, transfer_gas(lane.context, LaneMemory()))


def quote_gaps(lane: Lane) -> ReplacementPrice:
    """What `fill_gaps` would cost, and which nonces it would fill."""
    seen = _read_chain(lane.context)
    return ReplacementPrice(
        tuple(_find_gaps(lane.context, seen)),
        quote(lane.context.policy.fees, seen.market),
        transfer_gas(lane.context, LaneMemory()),
    )


def bump(lane: Lane, nonce: Nonce) -> Replaced:
    """Send the call of an open nonce again at a higher fee; the lane follows both transactions."""
    with _leased(lane) as run:
        seen, record = _read_chain(run.context), _open_record(run.context, nonce)
        return _send_replacement(
            run, seen, record, same_call(run.context, record, _bumped_price(run.context, seen, record))
        )


def cancel(lane: Lane, nonce: Nonce) -> Replaced:
    """Spend an open nonce on a no-op replacement (0-value self-transfer); its intents then end as FAILED."""
    with _leased(lane) as run:
        context, seen, record = run.context, _read_chain(run.context), _open_record(run.context, nonce)
        fees, gas = _bumped_price(context, seen, record), transfer_gas(context, LaneMemory())
        wallet, chain_id = context.lane.wallet, context.lane.chain_id
        unsigned = to_self(wallet, chain_id, nonce, fees, Purpose.CANCEL, _CANCELLED, gas=gas)
        return _send_replacement(run, seen, record, unsigned)


def cancel_queued(lane: Lane, key: str, *, dry_run: bool = False) -> None:
    """End an intent that has no nonce as FAILED. `dry_run`: only check.

    Raises BadInput if the intent is unknown or not in the queue.
    """
    with _leased(lane) as run:
        found = run.context.store.intents([key])
        held = run.context.store.holding(run.context.lane, key)
        if not found or found[0].state is not IntentState.QUEUED or held is not None:
            raise BadInput(what=f"Intent {key} is not in the queue; to stop one that was sent, cancel its nonce.")
        if not dry_run:
            run.context.store.move(run.lease, [IntentMove((key,), IntentState.FAILED, reason=_CANCELLED)], ())
            # It may have been what the lane waited for.
            run.context.store.set_waiting(run.lease, None)


def rebroadcast(lane: Lane) -> list[str]:
    """Send all open transactions to the node again; returns the node's answers, in nonce order."""
    with _leased(lane) as run:
        return _send_now(run, _read_chain(run.context), run.context.store.records(run.context.lane, (NonceState.OPEN,)))


def fill_gaps(lane: Lane) -> list[Nonce]:
    """Fill every nonce below the highest that has no record with a no-op, at once; returns which."""
    with _leased(lane) as run:
        seen = _read_chain(run.context)
        gaps = _find_gaps(run.context, seen)
        _send_now(run, seen, fill_nonces(run, seen, gaps, LaneMemory()))
        return gaps


def disown(lane: Lane, nonce: Nonce, *, dry_run: bool = False) -> list[IntentMove]:
    """Accept that a foreign transaction took this nonce, so that the lane goes on. Returns what becomes of the nonce's
    intents.

    `dry_run`: change nothing. Raises BadInput unless the lane is halted and a final block shows the foreign
    transaction: if the nonce was the lane's own after all, its calls would be carried out twice.
    """
    with _leased(lane) as run:
        context, seen, record = run.context, _read_chain(run.context), _open_record(run.context, nonce)
        if record.nonce >= seen.count:
            raise BadInput(what=f"Nonce {nonce} is not spent; nobody took it.")
        receipt = receipts(context.rpc, [record])[nonce]
        if isinstance(receipt, Known):
            tx_hash, block = receipt.value.tx_hash, receipt.value.block
            raise BadInput(what=f"Nonce {nonce} is ours: {tx_hash} is in block {block}. The lane goes on by itself.")
        if run.lease.halted is None:
            raise BadInput(what="The lane still looks for who spent it; it stops by itself if that is not ours.")
        _prove_foreign(context, seen, record)
        intents = context.store.intents(record.intents)
        verdicts = context.readiness.check(intents, seen.moment)
        why = f"nonce {nonce} was taken by a foreign transaction"
        moves = [
            after_release(context.policy.max_generations, intent, verdict, why, explained=True)
            for intent, verdict in zip(intents, verdicts, strict=True)
        ]
        if not dry_run:
            context.store.move(run.lease, moves, [Disowned(nonce)])
            context.store.halt(context.lane, None, run.lease)
            log.warning("Foreign nonce accepted.", action="lane_disowned", wallet=lane.id.wallet, nonce=nonce)
    return moves


def _prove_foreign(context: RunContext, seen: ChainSnapshot, record: NonceRecord) -> None:
    """Return if a final block proves that a foreign transaction spent the nonce; else raise BadInput."""
    match find_spender(context.rpc, context.lane.wallet, record, seen.head):
        case Known(found) if found.ours:
            what = f"is ours: {found.tx_hash} is in block {found.block}; the node only has no receipt of it yet."
        case Known(found) if found.block > seen.head - context.policy.finality:
            # The one that stopped the lane was final, but a reorg deeper than that may have moved it.
            final = found.block + context.policy.finality
            what = (
                f"was taken by {found.tx_hash} from outside, but block {found.block} is not final yet: a reorg could"
                f" still put the lane's own in its place. Try again from block {final} on."
            )
        case Known(_):
            return
        case Unknown(why):
            what = (
                f"cannot be let go: it is not proved that a transaction from outside took it ({why})."
                " Try again later, or with a node that keeps old blocks (SLUICE_RPC_URL)."
            )
    raise BadInput(what=f"Nonce {record.nonce} {what}")


def resume(lane: Lane, *, dry_run: bool = False) -> str:
    """End the halt of a lane, for an operator who knows that its reason was wrong. Returns that reason.

    If the reason still holds, the next run halts the lane again. `dry_run`: change nothing. Raises BadInput if the lane
    is not halted.
    """
    why = lane.context.store.halted(lane.id)
    if why is None:
        raise BadInput(what="The lane is not halted.")
    if not dry_run:
        lane.context.store.halt(lane.id, None)
        log.warning("The lane goes on.", action="lane_resumed", wallet=lane.id.wallet, why=why)
    return why


# -- shared ------------------------------------------------------------------------------------------------------------


@contextmanager
def _leased(lane: Lane) -> Iterator[LeasedRun]:
    """A leased run for the commands of this module. Raises LeaseLost while a run of the service holds the lease."""
    context = lane.context
    lease = context.store.take_lease(context.lane, lane.holder, context.policy.lease)
    if lease is None:
        raise LeaseLost(wallet=context.lane.wallet, fence="of a run")
    try:
        yield LeasedRun(context, lease, context.monotonic())
    finally:
        context.store.give_back(lease)


def _open_record(context: RunContext, nonce: Nonce) -> NonceRecord:
    """The record of an open nonce. Raises BadInput if the nonce is unknown or not open."""
    record = context.store.record(context.lane, nonce)
    if record is None or record.state is not NonceState.OPEN:
        state = "unknown" if record is None else record.state.value
        raise BadInput(what=f"Nonce {nonce} of {context.lane.wallet} is {state}, not open.")
    return record


def _bumped_price(context: RunContext, seen: ChainSnapshot, record: NonceRecord) -> Fees:
    """Fees that a node accepts in place of the record's present ones. Raises BadInput at the ceiling."""
    fees = bumped_fees(context.policy.fees, seen.market, record.newest.fees)
    if fees is None and record.newest.fees.max_fee == 0:
        return quote(context.policy.fees, seen.market)
    if fees is None:
        raise BadInput(what=f"Nonce {record.nonce} already offers as much as SLUICE_MAX_FEE_GWEI allows.")
    return fees


def _read_chain(context: RunContext) -> ChainSnapshot:
    """Head, account nonce, balance and fees now."""
    return take_snapshot(context.rpc, context.lane.wallet, None)


def _find_gaps(context: RunContext, seen: ChainSnapshot) -> list[Nonce]:
    """Unspent nonces below the highest claimed one that have no record."""
    highest = context.store.highest_nonce(context.lane)
    span = range(seen.count, 0 if highest is None else highest)
    return [Nonce(nonce) for nonce in span if context.store.record(context.lane, Nonce(nonce)) is None]


def _send_replacement(run: LeasedRun, seen: ChainSnapshot, record: NonceRecord, unsigned: Unsigned) -> Replaced:
    """Sign `unsigned`, store it as the newest attempt of this nonce, and send it."""
    (attempt,) = run.context.signer.sign([unsigned])
    move = Repriced(record.nonce, attempt)
    run.context.store.move(run.lease, (), [move])
    replaced = apply(record, move)
    (answer,) = _send_now(run, seen, [replaced])
    log.info("Replaced by hand.", action="lane_replaced", nonce=record.nonce, tx=attempt.tx_hash, answer=answer)
    return Replaced(replaced, answer)


def _send_now(run: LeasedRun, seen: ChainSnapshot, records: Sequence[NonceRecord]) -> list[str]:
    """Send the newest attempt of each record; for each, `accepted` or the node's words of refusal."""
    memory = LaneMemory()
    broadcast(run, seen, records, memory)
    refusals = [memory.refusal_of(record.nonce) for record in records]
    return ["accepted" if refusal is None else refusal.words for refusal in refusals]
