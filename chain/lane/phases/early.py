"""Steps that go out behind a transaction that is not in a block yet (SLUICE_STATE=pending): which, and how they ended.

waits at the head ─► the node's pending state: would it succeed behind what waits there? ─► sent in the same block
reverted nevertheless ─► it came too early: counted, judged again, and from then on it waits like any other
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from chain.lane.model.intent import Intent
from chain.lane.phases.context import LaneMemory, RunContext
from chain.lane.phases.snapshot import ChainSnapshot
from chain.lane.rules.order import FOLLOWERS
from chain.lane.rules.readiness import Judgement, ReadinessVerdict
from chain.rpc.answers import MISREAD
from config.metrics import EARLY_REVERT_GAS, EARLY_REVERTS
from protocol.errors import RpcUnavailable
from protocol.types import BlockNumber, TxHash

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EarlyRevert:
    """An early step that reverted because it was ahead of the transaction that it relies on. `gas_used`: gas units."""

    method: str
    gas_used: int
    tx_hash: TxHash


def find_early(
    context: RunContext,
    seen: ChainSnapshot,
    memory: LaneMemory,
    intents: Sequence[Intent],
    verdicts: Sequence[ReadinessVerdict],
) -> set[str]:
    """Keys of the intents whose verdict is WAIT, but which would succeed behind the pending transactions.

    Intents that have lost a nonce before are left out, so that none reverts early twice. Empty where the node does not
    answer, or not as it should: it is asked again some blocks later, and READY intents are sent meanwhile.
    """
    if context.pending_readiness is None or not memory.early.is_open(seen.head):
        return set()
    waiting = [
        intent
        for intent, verdict in zip(intents, verdicts, strict=True)
        if verdict.judgement is Judgement.WAIT and intent.method in FOLLOWERS and not intent.generation
    ]
    # The oldest: no more can be in flight, and some nodes run all that is pending for each question.
    waiting = waiting[: context.policy.max_in_flight]
    try:
        found = context.pending_readiness.check(waiting, seen.moment) if waiting else []
    except (RpcUnavailable, *MISREAD) as error:
        memory.early = memory.early.unanswered(seen.head)
        log.warning(
            "The node does not tell its pending state: no step goes out early until it is asked again.",
            action="lane_no_early",
            wallet=context.lane.wallet,
            until_block=memory.early.opens_at,
            why=str(error),
        )
        return set()
    return {intent.key for intent, verdict in zip(waiting, found, strict=True) if verdict.judgement is Judgement.READY}


def note_ended(
    context: RunContext, memory: LaneMemory, succeeded: int, reverts: Sequence[EarlyRevert], head: BlockNumber
) -> None:
    """Count early steps that ended, in the guard and the metrics; log it when the guard begins a pause."""
    for revert in reverts:
        EARLY_REVERTS.labels(revert.method).inc()
        EARLY_REVERT_GAS.labels(revert.method).inc(revert.gas_used)
    before, memory.early = memory.early, memory.early.after(succeeded, len(reverts), head)
    if reverts and memory.early.opens_at > max(before.opens_at, head):
        log.warning(
            "Too many steps came too early and reverted: for a while each waits for the block of what it relies on.",
            action="lane_early_paused",
            wallet=context.lane.wallet,
            until_block=memory.early.opens_at,
            last_tx=reverts[-1].tx_hash,
        )
