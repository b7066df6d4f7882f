"""Second phase of a run: what became of the nonces that are spent, and of the blocks that spent them.

nonce < account nonce ─► receipts over all attempts ─┬─ success ─► MINED
                                                   ├─ reverted, or no-op replacement ─► intents released and judged
                                                   └─ none to be seen ─► asked again at the next head; meanwhile:
                                       a final block shows a transaction that is not ours at this nonce ─► ForeignNonce;
                                       of a record that carries nothing, such as a gap filler: FOREIGN, without a halt
                                       a block shows ours, or no node can tell ─► the lane waits and reports it
newest block of ours ─┬─ its hash stands: MINED records deep enough are FINAL
                      └─ it is gone: receipts again of all MINED records, and of those FINAL ones whose blocks are
                         gone as well; what has none is OPEN again (receipts may be the first to show that)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from chain.lane.model.intent import IntentState, method_of
from chain.lane.model.nonce import (
    UNSETTLED,
    Consumed,
    Disowned,
    Finalised,
    Mined,
    NonceMove,
    NonceRecord,
    NonceState,
    Purpose,
    Reclaimed,
    Released,
    Sent,
    Unmined,
    apply,
    nonces_of,
)
from chain.lane.phases.context import LaneMemory, LeasedRun, Missing, RunContext
from chain.lane.phases.early import EarlyRevert, note_ended
from chain.lane.phases.proof import find_spender, receipts
from chain.lane.phases.release import after_release, judge_released, read_block_times, reason_label, reclaimable
from chain.lane.phases.snapshot import ChainSnapshot
from chain.lane.rules.readiness import Judgement
from chain.lane.store.port import IntentMove
from chain.rpc.answers import Known, Unknown, decode_reply
from config.metrics import LANE_FAILED, LANE_GAS_SPENT, LANE_MINED
from protocol.errors import ForeignNonce
from protocol.types import BlockNumber, Nonce, TxHash

log = structlog.get_logger(__name__)

#: FINAL records checked at a time after a reorg: one RPC batch, and deeper than any reorg seen on a live chain.
_LOOK_BACK = 64


@dataclass(slots=True)
class Confirmed:
    """Result of the confirm phase."""

    #: Records that are OPEN now.
    open: list[NonceRecord] = field(default_factory=list)
    #: Records whose nonce is spent although no receipt of theirs is to be seen, and why.
    missing: list[tuple[NonceRecord, str]] = field(default_factory=list)
    #: Keys of intents that ended.
    ended: list[str] = field(default_factory=list)
    #: Keys of intents that are MINED.
    mined: list[str] = field(default_factory=list)
    #: The transactions that did it.
    transactions: list[TxHash] = field(default_factory=list)
    #: What became of nonces, by method and outcome, for the metric.
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Intents that FAILED, by method and reason, and fees of what is final in wei by method, for the metrics.
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    fees: Counter[str] = field(default_factory=Counter)
    #: How many early steps succeeded, and those that came too early.
    early: int = 0
    early_reverts: list[EarlyRevert] = field(default_factory=list)

    @property
    def spent(self) -> list[NonceRecord]:
        """Records whose nonce is spent although no receipt of theirs is found: those in `missing`, without
        the reasons.
        """
        return [record for record, _ in self.missing]


@dataclass(slots=True)
class _Moves:
    """What the confirm phase writes, collected and then stored in one call."""

    intents: list[IntentMove] = field(default_factory=list)
    nonces: list[NonceMove] = field(default_factory=list)
    #: Keys of intents that succeeded, by block: a thousand of one block are one write.
    mined: dict[BlockNumber, list[str]] = field(default_factory=dict)

    def mined_intents(self) -> list[IntentMove]:
        """Moves of the intents that succeeded to MINED, one for each block."""
        return [IntentMove(tuple(keys), IntentState.MINED, block) for block, keys in self.mined.items() if keys]


def confirm(run: LeasedRun, snapshot: ChainSnapshot, newest: NonceRecord | None, memory: LaneMemory) -> Confirmed:
    """Read receipts, detect reorgs and store what follows for nonces and intents; called once a run.

    `newest`: the newest record in a block. Raises ForeignNonce, LeaseLost, RpcUnavailable.
    """
    context, moves, result = run.context, _Moves(), Confirmed()
    reorged = snapshot.contradicts(newest)
    records, found = _read_receipts(context, snapshot, reorged=reorged)
    if not reorged and newest is not None and _replaced_since(context, snapshot, newest, found):
        reorged = True
        records, found = _read_receipts(context, snapshot, reorged=True)
    reverted: list[NonceRecord] = []
    for record in records:
        answer = found.get(record.nonce)
        if not isinstance(answer, Known):
            _without_receipt(record, snapshot, answer, moves, result)
            continue
        mined = answer.value
        if mined == record.mined:
            continue
        consumed = Consumed(record.nonce, mined)
        replaced_by_noop = record.attempt(mined.tx_hash).purpose is not Purpose.CALL
        if not replaced_by_noop and not mined.success:
            reverted.append(apply(record, consumed))
            continue
        if replaced_by_noop:
            # A reorg could still put the call in its place: its intents stay until this is final.
            moves.intents.append(IntentMove(record.intents, IntentState.SENT))
            moves.nonces.append(consumed)
            continue
        back = reclaimable(context, record)
        move = Reclaimed(record.nonce, mined, back) if back else consumed
        moves.nonces.append(move)
        _add_success(apply(record, move), mined, moves, result)
    deep: list[NonceRecord] = []
    if not reorged:
        depth = BlockNumber(snapshot.head - context.policy.finality)
        deep = context.store.records(context.lane, (NonceState.MINED,), up_to=depth)
    released = [*reverted, *(record for record in deep if _replaced_by_noop(record))]
    _release_intents(context, snapshot, released, moves, result)
    moves.nonces.sort(key=lambda move: nonces_of(move)[0])
    _finalise(deep, moves, result)
    context.store.move(run.lease, [*moves.intents, *moves.mined_intents()], moves.nonces)
    run.ended += result.ended
    _count(result)
    note_ended(context, memory, result.early, result.early_reverts, snapshot.head)
    if result.transactions:
        # One line a run: a thousand transactions are a thousand lines too many.
        log.info(
            "Transactions mined.",
            action="lane_mined",
            wallet=context.lane.wallet,
            head=snapshot.head,
            transactions=len(result.transactions),
            intents=len(result.mined),
            first_tx=result.transactions[0],
        )
    _halt_if_foreign(run, snapshot, result, memory)
    return result


def _count(result: Confirmed) -> None:
    """Count in the metrics what the confirm phase has stored."""
    for (method, outcome), number in result.outcomes.items():
        LANE_MINED.labels(method, outcome).inc(number)
    for (method, reason), number in result.failed.items():
        LANE_FAILED.labels(method, reason).inc(number)
    for method, fee in result.fees.items():
        LANE_GAS_SPENT.labels(method).inc(fee)


def _without_receipt(
    record: NonceRecord, snapshot: ChainSnapshot, answer: Unknown | None, moves: _Moves, result: Confirmed
) -> None:
    """Record that no receipt was found: the nonce is OPEN (again), neither confirmed nor given up."""
    if record.state is not NonceState.OPEN:
        back = Unmined((record.nonce,))
        moves.intents.append(IntentMove(record.intents, IntentState.SENT))
        moves.nonces.append(back)
        record = apply(record, back)
    elif record.nonce < snapshot.count and record.sent_block is None:
        # Nothing is left to send. The run that did broke off before it stored that, and left its intents in the queue.
        moves.intents.append(IntentMove(record.intents, IntentState.SENT))
        moves.nonces.append(Sent((record.nonce,), snapshot.head))
    if record.nonce < snapshot.count:
        result.missing.append((record, "no node was asked yet" if answer is None else answer.why))
    else:
        result.open.append(record)


def _add_success(record: NonceRecord, mined: Mined, moves: _Moves, result: Confirmed) -> None:
    """Add a nonce whose call was mined and succeeded to `moves` and `result`."""
    moves.mined.setdefault(mined.block, []).extend(record.intents)
    result.mined.extend(record.intents)
    result.outcomes[method_of(record.intents), "success"] += 1
    result.early += record.early
    result.transactions.append(mined.tx_hash)


def _replaced_by_noop(record: NonceRecord) -> bool:
    """Whether a no-op replacement (0-value self-transfer) spent the nonce while the record still holds intents."""
    assert record.mined is not None
    return bool(record.intents) and record.attempt(record.mined.tx_hash).purpose is not Purpose.CALL


def _release_intents(
    context: RunContext, snapshot: ChainSnapshot, records: Sequence[NonceRecord], moves: _Moves, result: Confirmed
) -> None:
    """Detach intents from nonces that were spent without carrying them out.

    Each of the intents ends, or goes back to the queue to get a transaction of its own.
    """
    if not records:
        return
    moments = read_block_times(context, {record.mined.block for record in records if record.mined is not None})
    for record in records:
        mined = record.mined
        assert mined is not None
        attempt = record.attempt(mined.tx_hash)
        early = record.early and attempt.purpose is Purpose.CALL
        intents = context.store.intents(record.intents)
        verdicts = judge_released(context, snapshot, attempt.purpose, intents, moments.get(mined.block))
        why = (
            attempt.note
            or f"reverted in block {mined.block} with gas used {mined.gas_used} of {record.gas_of(attempt)}"
        )
        explained = any(verdict.judgement in (Judgement.DONE, Judgement.DEAD) for verdict in verdicts)
        for intent, verdict in zip(intents, verdicts, strict=True):
            move = after_release(context.policy.max_generations, intent, verdict, why, explained=explained, early=early)
            moves.intents.append(move)
            if move.state is not IntentState.QUEUED:
                result.ended.append(intent.key)
            if move.state is IntentState.FAILED:
                result.failed[method_of(move.keys), reason_label(attempt.purpose, verdict.judgement)] += 1
            log.warning(
                "Intent left its nonce.",
                action="lane_released",
                wallet=record.lane.wallet,
                nonce=record.nonce,
                tx=mined.tx_hash,
                intent=intent.key,
                now=move.state.value,
                why=move.reason,
            )
        if early and not explained:
            result.early_reverts.append(EarlyRevert(method_of(record.intents), mined.gas_used, mined.tx_hash))
        moves.nonces.append(Released(record.nonce, mined))
        outcome = "reverted" if attempt.purpose is Purpose.CALL else attempt.purpose.value
        result.outcomes[method_of(record.intents), outcome] += 1


def _finalise(deep: Sequence[NonceRecord], moves: _Moves, result: Confirmed) -> None:
    """Add the moves to FINAL of records that are `finality` blocks deep, and of their intents."""
    if not deep:
        return
    by_block: dict[BlockNumber, list[str]] = {}
    for record in deep:
        assert record.mined is not None
        result.fees[method_of(record.intents or record.released)] += record.mined.fee
        if not _replaced_by_noop(record):
            by_block.setdefault(record.mined.block, []).extend(record.intents)
    for block, keys in by_block.items():
        if keys:
            moves.intents.append(IntentMove(tuple(keys), IntentState.FINAL, block=block))
            result.ended.extend(keys)
    moves.nonces.append(Finalised(tuple(record.nonce for record in deep)))


def _halt_if_foreign(run: LeasedRun, snapshot: ChainSnapshot, result: Confirmed, memory: LaneMemory) -> None:
    """Record why receipts are missing; halt the lane if a final block proves a foreign transaction at the lowest.

    A record that carries no intents is let go of instead: nothing is left for an operator to decide.
    """
    context = run.context
    before, memory.missing = memory.missing, {}
    for record, why in result.missing:
        known = before.get(record.nonce)
        memory.missing[record.nonce] = Missing(snapshot.head if known is None else known.since, why)
    if not result.missing:
        return
    record, why = result.missing[0]
    since = memory.missing[record.nonce].since
    # At the first head the receipt may just be a moment late. Later, one search per head is enough.
    if since == snapshot.head:
        return
    if memory.spender_sought == snapshot.head:
        memory.missing[record.nonce] = before.get(record.nonce, memory.missing[record.nonce])
        return
    memory.spender_sought = snapshot.head
    match find_spender(context.rpc, context.lane.wallet, record, snapshot.head):
        case Known(found) if found.ours:
            why = f"{found.tx_hash} is in block {found.block}, but {why}"
        case Known(found) if found.block > snapshot.head - context.policy.finality:
            why = f"{found.tx_hash}, which is not ours, took it in block {found.block}, which is not final yet"
        case Known(found) if not record.intents:
            context.store.move(run.lease, (), [Disowned(record.nonce)])
            del memory.missing[record.nonce]
            log.warning(
                "The wallet's key is used outside: a nonce that carried nothing was taken.",
                action="lane_foreign_filler",
                wallet=context.lane.wallet,
                nonce=record.nonce,
                tx=found.tx_hash,
                block=found.block,
            )
            return
        case Known(found):
            why = f"{found.tx_hash} in block {found.block} is not ours"
            error = ForeignNonce(wallet=context.lane.wallet, nonce=record.nonce, why=why)
            context.store.halt(context.lane, str(error), run.lease)
            log.error(
                "The wallet's key was used outside; decide by `sluice tx disown` or `sluice tx resume`.",
                action="lane_foreign_nonce",
                wallet=context.lane.wallet,
                nonce=record.nonce,
                why=why,
            )
            raise error
        case Unknown(proof):
            why = f"{why}; {proof}" if proof != why else why
    memory.missing[record.nonce] = Missing(since, why)


# -- reading -----------------------------------------------------------------------------------------------------------


def _read_receipts(
    context: RunContext, snapshot: ChainSnapshot, *, reorged: bool
) -> tuple[list[NonceRecord], dict[Nonce, Known[Mined] | Unknown]]:
    """The records to check (with `reorged`, all that a reorg may concern), and by nonce what their receipts say."""
    records = context.store.records(context.lane, UNSETTLED if reorged else (NonceState.OPEN,))
    if reorged:
        log.warning(
            "A block of ours was reorganised.", action="lane_reorg", wallet=context.lane.wallet, head=snapshot.head
        )
        # Lowest first: if a crash cuts the writing short, the newest record still tells the next run of the reorg.
        records = sorted([*_find_undone(context), *records], key=lambda record: record.nonce)
    to_check = [record for record in records if record.nonce < snapshot.count or record.state is not NonceState.OPEN]
    return records, receipts(context.rpc, to_check)


def _replaced_since(
    context: RunContext, snapshot: ChainSnapshot, newest: NonceRecord, found: Mapping[Nonce, Known[Mined] | Unknown]
) -> bool:
    """Whether the block of `newest` is gone on the branch of the receipts `found`. Called if that may be another branch
    than the snapshot's: what they confirm becomes the newest record, and records below it are not checked again.
    """
    blocks = {answer.value.block_hash for answer in found.values() if isinstance(answer, Known)}
    return not blocks <= snapshot.branch and bool(_filter_replaced(context, [newest]))


def _find_undone(context: RunContext) -> list[NonceRecord]:
    """FINAL records whose blocks a reorg replaced, newest first.

    Reads back from the newest record until a block still stands: blocks are chained, so all below it stand as well.
    """
    undone: list[NonceRecord] = []
    below: Nonce | None = None
    while records := context.store.newest(context.lane, (NonceState.FINAL,), _LOOK_BACK, below):
        gone = _filter_replaced(context, records)
        undone += gone
        if len(gone) < len(records):
            break
        below = records[-1].nonce
    if undone:
        log.error(
            "A reorg was deeper than SLUICE_FINALITY_BLOCKS: raise it. What was taken back is carried out again.",
            action="lane_final_undone",
            wallet=context.lane.wallet,
            finality=context.policy.finality,
            nonces=[record.nonce for record in reversed(undone)],
        )
    return undone


def _filter_replaced(context: RunContext, records: Sequence[NonceRecord]) -> list[NonceRecord]:
    """The records whose block was replaced. A record above the node's head counts as not replaced."""
    numbers = sorted({record.mined.block for record in records if record.mined is not None})
    headers = context.rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
    now = {
        number: shown.value
        for number, header in zip(numbers, headers, strict=True)
        if isinstance(shown := decode_reply(header, lambda body: body["hash"]), Known)
    }
    return [
        record
        for record in records
        if record.mined is not None and now.get(record.mined.block, record.mined.block_hash) != record.mined.block_hash
    ]
