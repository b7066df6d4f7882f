"""What a lane waits for and cannot mend: said in the log, by the metric, to `tx ls` and to health.

A lane that waits is not halted: it asks again at every head, and goes on by itself.
"""

from __future__ import annotations

import structlog

from chain.lane.phases.context import Memory, Turn
from chain.lane.phases.snapshot import Look
from config.metrics import LANE_WAITS

log = structlog.get_logger(__name__)


def reason(memory: Memory, look: Look, blocks: int) -> str | None:
    """What has stood in the way for `blocks` blocks; the same words as long as it is the same. Pure."""
    missing = [(nonce, item) for nonce, item in memory.missing.items() if look.head - item.since >= blocks]
    if missing:
        nonce, item = min(missing, key=lambda each: each[0])
        return f"nonce {nonce} is spent, but it cannot be told by what: {item.why}"
    # Only the lowest nonce holds the others up; those above may be refused for its sake.
    refusal = (memory.refused | memory.doubted).get(look.count)
    if refusal is not None and look.head - refusal.since >= blocks:
        return f"nonce {look.count} is refused since block {refusal.since}: {refusal.words}"
    return memory.short


def tell(turn: Turn, look: Look, memory: Memory) -> None:
    """Say what the lane waits for, whenever that changes. Raises LeaseLost."""
    desk = turn.desk
    why = reason(memory, look, desk.policy.alarm_after)
    LANE_WAITS.labels(desk.lane.wallet).set(why is not None)
    if why != turn.lease.waiting:
        desk.store.wait(turn.lease, why)
    if why is not None and why != memory.alarmed:
        log.error(
            "The lane waits for something that it cannot mend.",
            action="lane_waits",
            wallet=desk.lane.wallet,
            head=look.head,
            why=why,
        )
    elif why is None and memory.alarmed is not None:
        log.warning("The lane waits no more.", action="lane_waits_no_more", wallet=desk.lane.wallet, head=look.head)
    memory.alarmed = why
