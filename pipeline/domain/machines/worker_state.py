"""What a machine does now, in one word. Pure.

`pipeline.store.machine.census` counts by the same rules in the database.
"""

from __future__ import annotations

from enum import StrEnum

from pipeline.domain.records import WorkerRecord


class WorkerState(StrEnum):
    """What a machine does now. Of several that apply, the first in this order counts."""

    BANNED = "banned"
    DRAINED = "drained"  #: `sluice worker drain`
    AWAY = "away"  #: it has signed off
    LOST = "lost"  #: nothing was heard of it for SLUICE_WORKER_LOST_SECONDS
    NO_GAS = "no gas"  #: its native token does not pay the gas of a task, when last read
    COOLING_DOWN = "cooling down"  #: after failures
    BUSY = "busy"  #: at least one slot is in use
    IDLE = "idle"


def state_of(worker: WorkerRecord, now: float, lost_after: float) -> WorkerState:
    """The state of a machine at `now` (Unix seconds); it is lost after `lost_after` seconds of silence."""
    checks = (
        (worker.banned, WorkerState.BANNED),
        (worker.drained, WorkerState.DRAINED),
        (worker.away, WorkerState.AWAY),
        (worker.lost or worker.seen_at < now - lost_after, WorkerState.LOST),
        (bool(worker.checked_at) and not worker.facts.funded, WorkerState.NO_GAS),
        (worker.rest_until > now, WorkerState.COOLING_DOWN),
        (bool(worker.held), WorkerState.BUSY),
    )
    return next((state for holds, state in checks if holds), WorkerState.IDLE)
