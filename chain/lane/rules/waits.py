"""What a lane waits for and cannot repair: reported in the log, the metric, `tx ls` and health.

A lane that waits is not halted: it asks again at every head, and goes on by itself.
"""

from __future__ import annotations

import structlog

from chain.lane.phases.context import Memory, Turn
from chain.lane.phases.snapshot import ChainSnapshot
from config.metrics import LANE_WAITS

log = structlog.get_logger(__name__)


def reason(memory: Memory, snapshot: ChainSnapshot, blocks: int) -> str | None:
    """What has stood in the way for `blocks` blocks; the same words as long as it is the same. Pure."""
    missing = [(nonce, item) for nonce, item in memory.missing.items() if snapshot.head - item.since >= blocks]
    if missing:
        nonce, item = min(missing, key=lambda each: each[0])
        return f"nonce {nonce} is spent, but it cannot be told by what: {item.why}"
    # Only the lowest nonce holds the others up; those above may be refused for its sake.
    refusal = (memory.refused | memory.maybe_sent).get(snapshot.count)
    if refusal is not None and snapshot.head - refusal.since >= blocks:
        return f"nonce {snapshot.count} is refused since block {refusal.since}: {refusal.words}"
    return memory.short


def tell(turn: Turn, snapshot: ChainSnapshot, memory: Memory) -> None:
    """Say what the lane waits for, whenever that changes. Raises LeaseLost."""
    context = turn.context
    why = reason(memory, snapshot, context.policy.alarm_after)
    LANE_WAITS.labels(context.lane.wallet).set(why is not None)
    if why != turn.lease.waiting:
        context.store.wait(turn.lease, why)
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
