"""What a machine that stops leaves unfinished, and until when it must be back. Pure.

app in its container    goes on running; its result must be voted for before the contribution deadline
result, no vote         the same
vote, not revealed      stake is locked: it must be revealed before the reveal deadline, or the stake is lost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from protocol.poco.deadlines import reveal_deadline
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.types import TaskId, Timestamp, Wallet
from workers.task.replicate import Replicate, ReplicateStage

#: Seconds that the chain's clock may be behind this machine's.
_CLOCKS_APART = 300.0
#: Seconds from now to the latest moment that is told: a hundred years.
_LATEST = 100 * 365 * 86400.0
_OVER = (TaskStatus.COMPLETED, TaskStatus.FAILED)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a stopped machine has left: counts, and moments in Unix seconds (None where nothing waits)."""

    #: Apps that go on running, and when the last of them ends at the latest.
    apps: int = 0
    apps_end: float | None = None
    #: Tasks whose work is unpaid unless the machine is back by then: apps, and results without a vote.
    unpaid: int = 0
    vote_by: float | None = None
    #: Votes whose stake is lost unless the machine is back by then.
    votes: int = 0
    reveal_by: float | None = None


def unfinished(
    replicates: Sequence[Replicate], views: Mapping[TaskId, ChainView], wallet: Wallet, now: float
) -> Unfinished:
    """What this machine's replicates leave unfinished. `views`: the tasks on chain, as far as the node answered; `now`:
    Unix seconds.
    """
    apps = [item for item in replicates if item.stage is ReplicateStage.RUNNING]
    unpaid = [
        item
        for item in replicates
        if item.stage in (ReplicateStage.TAKEN, ReplicateStage.RUNNING, ReplicateStage.COMPUTED)
    ]
    unpaid = [item for item in unpaid if item.assignment.contribution_deadline > now]
    votes = [
        by
        for item in replicates
        if item.stage in (ReplicateStage.COMMITTED, ReplicateStage.REVEALED) and not item.solo
        if (by := _reveal_by(item, views.get(item.task_id), wallet, now)) is not None
    ]
    return Unfinished(
        apps=len(apps),
        apps_end=max((item.updated_at + item.assignment.category_seconds for item in apps), default=None),
        unpaid=len(unpaid),
        vote_by=min((float(item.assignment.contribution_deadline) for item in unpaid), default=None),
        votes=len(votes),
        reveal_by=min(votes, default=None),
    )


def _reveal_by(item: Replicate, view: ChainView | None, wallet: Wallet, now: float) -> float | None:
    """When the vote must be revealed at the latest, as far as is known: never later than it really is. None: there is
    nothing to reveal, or it is too late.
    """
    long_ago = now - _CLOCKS_APART
    if item.assignment.final_deadline < long_ago:
        return None
    seconds = item.assignment.category_seconds
    if view is None:
        # Consensus may have come right after the vote.
        return float(reveal_deadline(Timestamp(int(item.updated_at)), seconds))
    vote = view.contribution(wallet)
    if view.status in _OVER or (vote is not None and vote.status is not ContributionStatus.CONTRIBUTED):
        return None
    if view.status is TaskStatus.REVEALING:
        late = view.reveal_deadline is not None and view.reveal_deadline < long_ago
        return None if late or vote is None or vote not in view.winners else float(view.reveal_deadline or now)
    if view.status is TaskStatus.ACTIVE and item.assignment.contribution_deadline < long_ago:
        # Without consensus by then there is none.
        return None
    # Consensus may come at once.
    return float(reveal_deadline(Timestamp(int(now)), seconds))


def sentence(left: Unfinished, now: float) -> str:
    """What is left, in words for the machine's operator; times are local."""
    if not left.unpaid and not left.votes:
        return "Stopped. Nothing is left unfinished."
    parts = ["Stopped."]
    if left.apps and left.apps_end is not None:
        goes = "1 app goes" if left.apps == 1 else f"{left.apps} apps go"
        parts.append(f"{goes} on running until {clock(left.apps_end, now)} at the latest.")
    if left.votes and left.reveal_by is not None:
        wait = "1 vote waits" if left.votes == 1 else f"{left.votes} votes wait"
        stake = "its stake is" if left.votes == 1 else "their stakes are"
        parts.append(f"{wait} to be revealed: start again before {clock(left.reveal_by, now)}, or {stake} lost.")
    if left.unpaid and left.vote_by is not None:
        tasks = "1 task needs" if left.unpaid == 1 else f"{left.unpaid} tasks need"
        parts.append(f"{tasks} a vote yet: start again before {clock(left.vote_by, now)}, or the work is not paid.")
    return " ".join(parts)


def clock(moment: float, now: float) -> str:
    """A moment as the operator's wall clock shows it, to the second before; with its date unless that is today's. One
    beyond _LATEST is shown as that: a pool may have signed any deadline, also one that no calendar holds.
    """
    at = datetime.fromtimestamp(min(moment, now + _LATEST)).astimezone()
    today = datetime.fromtimestamp(now).astimezone()
    return at.strftime("%H:%M:%S" if at.date() == today.date() else "%Y-%m-%d %H:%M:%S")
