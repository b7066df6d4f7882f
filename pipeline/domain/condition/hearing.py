"""Whether machines lately could not reach the pool, so that their silence does not mean that they are gone. Pure.

    API, database or scheduler away ─► no machine is heard ─► back ─► their pings come, one after another
                                       └───────────── nothing follows from silence ───────────┘

A pool whose last machine has gone silent hears none either: after LONGEST_SECONDS of sweeps that hear nothing, there
are no machines.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.domain.condition.holding import WITHDRAW_SECONDS
from pipeline.domain.records import CLOCKS_APART

#: Seconds for which sweeps may hear no machine before that counts as an answer: as long as a hold may last.
LONGEST_SECONDS = WITHDRAW_SECONDS


@dataclass(frozen=True, slots=True)
class Hearing:
    """What the sweeps found. Unix seconds."""

    #: When one ran last; None: never.
    swept_at: float | None = None
    #: When machines could last not be heard, and the first of the sweeps in a row that found so; 0: never.
    unheard_since: float = 0.0
    unheard_at: float = 0.0


def latest_sweep(now: float, silence: float, sweep_seconds: float) -> float:
    """Unix seconds since when one must have run, unless none runs. `silence`: as of `unheard_lately`.

    One that is later than two take is one that did not run.
    """
    return now - max(silence, 2 * sweep_seconds)


def unheard_lately(found: Hearing, now: float, silence: float, sweep_seconds: float) -> bool:
    """Whether the silence of machines means nothing at `now` (Unix seconds). `silence`: seconds after which one
    counts as lost (SLUICE_WORKER_LOST_SECONDS).
    """
    if found.swept_at is not None and found.swept_at < latest_sweep(now, silence, sweep_seconds):
        # Nobody has looked: the next sweep will find that.
        return True
    # A moment that is still to come is of a clock that was wrong.
    lately = found.unheard_at <= now + CLOCKS_APART and now < found.unheard_at + silence
    return lately and found.unheard_at < found.unheard_since + LONGEST_SECONDS
