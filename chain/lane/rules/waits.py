"""What a lane waits for and cannot repair: reported in the log, the metric, `tx ls` and health.

A lane that waits is not halted: it asks again at every head, and goes on by itself.
"""

from __future__ import annotations

import structlog

from chain.lane.phases.context import LaneMemory, LeasedRun
from chain.lane.phases.snapshot import ChainSnapshot
from config.metrics import LANE_WAITS

log = structlog.get_logger(__name__)


def reason(memory: LaneMemory, snapshot: ChainSnapshot, blocks: int) -> str | None:
    """What has blocked the lane for `blocks` blocks, in words; None if nothing has.

    Pure. The words stay the same while the reason does, so that it is logged once.
    """
    missing = [(nonce, item) for nonce, item in memory.missing.items() if snapshot.head - item.since >= blocks]
    if missing:
        nonce, item = min(missing, key=lambda each: each[0])
        return f"nonce {nonce} is spent, but it cannot be told by what: {item.why}"
    # Only the lowest nonce holds the others up; those above may be refused for its sake.
    refusal = memory.refusal_of(snapshot.count)
    if refusal is not None and snapshot.head - refusal.since >= blocks:
        return f"nonce {snapshot.count} is refused since block {refusal.since}: {refusal.words}"
    asked = memory.unanswered
    if memory.short is None and asked is not None and snapshot.head - asked.since >= blocks:
        return f"what the contract allows is not known since block {asked.since}: {asked.why}"
    return memory.short


def report_waiting(run: LeasedRun, snapshot: ChainSnapshot, memory: LaneMemory) -> None:
    """Store, log and count what the lane waits for, whenever that changes; called at the end of a run.

    Raises LeaseLost.
    """
    context = run.context
    why = reason(memory, snapshot, context.policy.alarm_after)
    LANE_WAITS.labels(context.lane.wallet).set(why is not None)
    if why != run.lease.waiting:
        context.store.set_waiting(run.lease, why)
    if why is not None and why != memory.alarmed:
        log.error(
            "The lane waits for something that it cannot mend.",
            action="lane_waits",
            wallet=context.lane.wallet,
            head=snapshot.head,
            why=why,
        )
    elif why is None and memory.alarmed is not None:
        log.warning(
            "The lane waits no more.", action="lane_waits_no_more", wallet=context.lane.wallet, head=snapshot.head
        )
    memory.alarmed = why
