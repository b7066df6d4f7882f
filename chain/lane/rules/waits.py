"""What a lane waits for and cannot repair: reported in the log, the metric, `tx ls` and health.

A lane that waits is not halted: it asks again at every head, and goes on by itself.
"""

from __future__ import annotations

import structlog

from chain.lane.phases.context import LaneMemory, LeasedRun
from chain.lane.phases.snapshot import ChainSnapshot
from config.metrics import LANE_WAITS
from protocol.types import BlockNumber

log = structlog.get_logger(__name__)

#: Why a run breaks off if the store refuses its write, although the lease is still its own.
CONTRADICTION = "the stored records contradict each other: `sluice tx audit` names what is wrong"


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
    memory.silent = None
    _report(run, memory, reason(memory, snapshot, run.context.policy.alarm_after), snapshot.head)


def report_silence(run: LeasedRun, memory: LaneMemory, told: str) -> None:
    """As `report_waiting`, for a run that breaks off because no node answers: reported if that lasts.

    `told`: why this one breaks off. Raises LeaseLost.
    """
    now, policy = run.context.monotonic(), run.context.policy
    if memory.silent is None:
        memory.silent = (now, told)
    # The words of the first: they stay the same while the reason does, so that it is logged once.
    since, first = memory.silent
    if now - since >= policy.silent_after:
        _report(run, memory, f"no run can end without an answer: {first}", None)


def report_contradiction(run: LeasedRun, memory: LaneMemory) -> None:
    """As `report_waiting`, for a run whose write conflicts with the lane's own records. Raises LeaseLost."""
    _report(run, memory, CONTRADICTION, None)


def _report(run: LeasedRun, memory: LaneMemory, why: str | None, head: BlockNumber | None) -> None:
    """Store, count and log `why` the lane waits, if that changed."""
    context = run.context
    LANE_WAITS.labels(context.lane.wallet).set(why is not None)
    if why != run.lease.waiting:
        context.store.set_waiting(run.lease, why)
    if why is not None and why != memory.alarmed:
        log.error(
            "The lane waits for something that it cannot repair.",
            action="lane_waits",
            wallet=context.lane.wallet,
            head=head,
            why=why,
        )
    elif why is None and memory.alarmed is not None:
        log.warning("The lane waits no more.", action="lane_waits_no_more", wallet=context.lane.wallet, head=head)
    memory.alarmed = why
