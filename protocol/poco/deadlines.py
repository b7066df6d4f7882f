"""When a task's steps end, in Unix seconds, from the category's time T (`workClockTimeRef`, seconds).

    deal start ────────────── 7 T ───────── 10 T
        │  contribute until    │             │ after it anybody may claim; the task has failed
        │            consensus ── 2 T ──►    │
        │                reveal until        │

Source: ratios of the PoCo contracts (CONTRIBUTION_DEADLINE_RATIO, FINAL_DEADLINE_RATIO, REVEAL_DEADLINE_RATIO).
"""

from __future__ import annotations

from protocol.types import Timestamp

CONTRIBUTION_DEADLINE_RATIO = 7
FINAL_DEADLINE_RATIO = 10
REVEAL_DEADLINE_RATIO = 2


def contribution_deadline(deal_start: Timestamp, category_seconds: int) -> Timestamp:
    """Unix time before which contributions must be mined."""
    return Timestamp(deal_start + CONTRIBUTION_DEADLINE_RATIO * category_seconds)


def final_deadline(deal_start: Timestamp, category_seconds: int) -> Timestamp:
    """Unix time before which finalize must be mined; from then on the task can be claimed."""
    return Timestamp(deal_start + FINAL_DEADLINE_RATIO * category_seconds)


def reveal_deadline(consensus_time: Timestamp, category_seconds: int) -> Timestamp:
    """Unix time before which reveals must be mined; from then on finalize or reopen is due."""
    return Timestamp(consensus_time + REVEAL_DEADLINE_RATIO * category_seconds)
