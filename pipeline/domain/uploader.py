"""Which winner is asked for the result. Pure."""

from __future__ import annotations

from pipeline.domain.records import ReplicateState, TaskRecord
from pipeline.domain.replicas import Timeouts, waits
from protocol.poco.view import ChainView, Contribution, ContributionStatus
from protocol.types import Wallet


def next_uploader(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Wallet | None:
    """The winner to ask for the result now; None while one that was asked still has time (`upload_timeout`), or if
    there is none.

    Preferred is who was never asked, else who was asked longest ago; of equals who has revealed, then who has more
    weight, then who voted first.
    """
    ranked: list[tuple[float, bool, int, int, Wallet]] = []
    for place, vote in enumerate(view.winners):
        replicate = task.replicate(vote.worker)
        if replicate is None or replicate.state is ReplicateState.FAILED:
            continue
        asked = replicate.upload_asked_at
        if asked is not None and waits(asked, timeouts.upload_timeout, now):
            return None
        ranked.append((asked or 0.0, not _revealed(vote), -replicate.weight, place, vote.worker))
    return min(ranked)[-1] if ranked else None


def _revealed(vote: Contribution) -> bool:
    """Whether a vote is revealed."""
    return vote.status is ContributionStatus.REVEALED
