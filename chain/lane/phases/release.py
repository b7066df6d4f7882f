"""What becomes of intents whose nonce was spent without carrying them out.

their call reverted                ─► judged by the state of that block, or of the head if the node cannot tell it
   done, or can never be done      ─► DONE, FAILED
   allowed, and reverted nevertheless ─► QUEUED, and counted: FAILED after `max_generations` times
   the node tells neither state    ─► QUEUED, not counted
an empty transaction took its place
   no node took the call           ─► QUEUED, and counted
   in favour of a reveal           ─► QUEUED, not counted
   an operator ordered it          ─► FAILED
a reorg has the call succeed after all ─► MINED with it, unless another nonce carries them by now (`reclaimable`)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.nonce import MAKES_ROOM, NonceRecord, Purpose
from chain.lane.phases.context import RunContext
from chain.lane.phases.snapshot import ChainSnapshot
from chain.lane.rules.readiness import READY, Judgement, Moment, ReadinessVerdict
from chain.lane.store.port import IntentMove
from chain.rpc.answers import Known, decode_replies
from protocol.types import BlockNumber, Timestamp


def read_block_times(context: RunContext, blocks: Iterable[BlockNumber]) -> dict[BlockNumber, Moment]:
    """These blocks' times, for `Readiness.check`; blocks of which the node tells none are left out."""
    numbers = sorted(blocks)
    headers = context.rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
    times = decode_replies(headers, lambda body: int(body["timestamp"], 16))
    return {
        number: Moment(number, Timestamp(shown.value))
        for number, shown in zip(numbers, times, strict=True)
        if isinstance(shown, Known)
    }


def reclaimable(context: RunContext, record: NonceRecord) -> tuple[str, ...]:
    """Keys of intents that left this nonce and that no other nonce carries.

    Called once the nonce's call has succeeded in a block: these intents are done after all, whatever state they got
    when they left.
    """
    if not record.released:
        return ()
    # What ended may be deleted by now.
    kept = {intent.key for intent in context.store.intents(record.released)}
    return tuple(key for key in record.released if key in kept and context.store.holding(context.lane, key) is None)


def judge_released(
    context: RunContext, snapshot: ChainSnapshot, purpose: Purpose, intents: Sequence[Intent], at: Moment | None
) -> list[ReadinessVerdict]:
    """Why a transaction of this purpose, in the block `at`, did nothing for its intents: a verdict for each.

    The verdicts are of the state at `at`; of the state at the head where the node does not tell the older one, or where
    `at` is None. An unanswered verdict would leave the intent's failure uncounted, and the lane would send it without
    limit. Raises RpcUnavailable.
    """
    if purpose is Purpose.CANCEL:
        return [ReadinessVerdict(Judgement.DEAD, "cancelled")] * len(intents)
    if purpose is Purpose.YIELD:
        return [READY] * len(intents)
    verdicts = context.readiness.check(intents, at or snapshot.moment)
    missing = [intent for intent, verdict in zip(intents, verdicts, strict=True) if verdict.unanswered]
    if not missing or at is None or at.block == snapshot.head:
        return verdicts
    again = iter(context.readiness.check(missing, snapshot.moment))
    return [next(again) if verdict.unanswered else verdict for verdict in verdicts]


def reason_label(purpose: Purpose, judgement: Judgement) -> str:
    """Why an intent FAILED when it left its nonce, as a metric label."""
    if purpose is Purpose.CANCEL:
        return "cancelled"
    return "impossible" if judgement is Judgement.DEAD else "reverted"


def after_release(
    most: int, intent: Intent, verdict: ReadinessVerdict, why: str, *, explained: bool = False, early: bool = False
) -> IntentMove:
    """The move of an intent that left its nonce: DONE or FAILED by its `verdict`, else QUEUED again. Pure.

    `most`: times that it may leave a nonce before it is FAILED. `why`: what spent the nonce. `explained`: whether
    another call of the same transaction is known to have failed it, e.g. an `initialize` that a stranger sent first.
    Then the rest go together again: else a stranger could turn one transaction of ours into fifty. `early`:
    whether it went out before what it relies on was in a block, which is counted in any case: it happens once at most.
    """
    if verdict.judgement is Judgement.DONE:
        return IntentMove((intent.key,), IntentState.DONE, reason=verdict.reason)
    if verdict.judgement is Judgement.DEAD:
        return IntentMove((intent.key,), IntentState.FAILED, reason=f"{verdict.reason} ({why})")
    if explained or why == MAKES_ROOM or (verdict.unanswered and not early):
        return IntentMove((intent.key,), IntentState.QUEUED, reason=why)
    generation = intent.generation + 1
    if generation >= most:
        reason = f"{why}, {generation} times, although every known precondition held"
        return IntentMove((intent.key,), IntentState.FAILED, reason=reason, generation=generation)
    return IntentMove((intent.key,), IntentState.QUEUED, reason=why, generation=generation)
