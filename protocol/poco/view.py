"""What the chain says of one task, folded from its events or read from the contract: the same type either way.

UNSET ──initialize──► ACTIVE ──consensus──► REVEALING ──finalize──► COMPLETED
                        ▲  │                    │ │
                        │  └──────claim─────────┼─┴──claim──► FAILED
                        └────────reopen─────────┘
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

from protocol.poco import events
from protocol.poco.deadlines import reveal_deadline
from protocol.types import BlockNumber, Hash32, TaskId, Timestamp, Wallet


class TaskStatus(IntEnum):
    """PoCo's TaskStatusEnum."""

    UNSET = 0
    ACTIVE = 1
    REVEALING = 2
    COMPLETED = 3
    FAILED = 4


class ContributionStatus(IntEnum):
    """PoCo's ContributionStatusEnum; REVEALED is called PROVED in the contract."""

    UNSET = 0
    CONTRIBUTED = 1
    REVEALED = 2
    REJECTED = 3


@dataclass(frozen=True, slots=True)
class Contribution:
    """One worker's vote."""

    worker: Wallet
    result_hash: Hash32
    status: ContributionStatus
    block: BlockNumber


@dataclass(frozen=True, slots=True)
class ChainView:
    """One task on chain. Deadlines are Unix seconds; `None` blocks mean: not yet."""

    task_id: TaskId
    status: TaskStatus = TaskStatus.UNSET
    contributions: tuple[Contribution, ...] = ()
    consensus: Hash32 | None = None
    reveal_deadline: Timestamp | None = None
    #: `results` given to finalize, `0x` hex.
    results: str = "0x"
    initialized_block: BlockNumber | None = None
    consensus_block: BlockNumber | None = None
    finalized_block: BlockNumber | None = None
    #: Time of the block that initialized it, where its logs tell.
    initialized_at: Timestamp | None = None
    #: Time of the newest block, where a clock cannot stand for it; None: the caller's clock does.
    time: Timestamp | None = None

    def past(self, deadline: float, now: float) -> bool:
        """Whether a deadline of the contract has passed: by the chain's time, or `now` by the caller's clock."""
        return (now if self.time is None else self.time) >= deadline

    def contribution(self, worker: Wallet) -> Contribution | None:
        """The vote of that worker; None if it has not voted."""
        return next((vote for vote in self.contributions if vote.worker == worker), None)

    @property
    def winners(self) -> tuple[Contribution, ...]:
        """Votes for the consensus that are not rejected."""
        return tuple(
            vote
            for vote in self.contributions
            if self.consensus is not None
            and vote.result_hash == self.consensus
            and vote.status is not ContributionStatus.REJECTED
        )

    @property
    def revealed(self) -> tuple[Contribution, ...]:
        """Votes whose digest is revealed."""
        return tuple(vote for vote in self.contributions if vote.status is ContributionStatus.REVEALED)


def fold(task_id: TaskId, seen: Iterable[events.Seen], *, category_seconds: int) -> ChainView:
    """The view that follows from a task's events; order and repetition of `seen` do not matter.

    Orphaned events must be left out by the caller: folding what remains is how a reorg is undone.
    """
    view = ChainView(task_id)
    unique = {(item.block_number, item.log_index): item for item in seen}
    for _, item in sorted(unique.items()):
        view = _apply_event(view, item, category_seconds)
    return view


def _apply_event(view: ChainView, item: events.Seen, category_seconds: int) -> ChainView:
    """The view after one more event."""
    match item.event:
        case events.TaskInitialize():
            block, at = item.block_number, item.timestamp
            return replace(view, status=TaskStatus.ACTIVE, initialized_block=block, initialized_at=at)
        case events.TaskContribute(worker=worker, result_hash=result_hash):
            vote = Contribution(worker, result_hash, ContributionStatus.CONTRIBUTED, item.block_number)
            return replace(view, contributions=(*view.contributions, vote))
        case events.TaskConsensus(consensus=consensus):
            return replace(
                view,
                status=TaskStatus.REVEALING,
                consensus=consensus,
                consensus_block=item.block_number,
                reveal_deadline=reveal_deadline(item.timestamp, category_seconds),
            )
        case events.TaskReveal(worker=worker):
            return _set_vote_status(view, worker, ContributionStatus.REVEALED)
        case events.TaskReopen():
            losers = [vote.worker for vote in view.winners]
            for worker in losers:
                view = _set_vote_status(view, worker, ContributionStatus.REJECTED)
            return replace(view, status=TaskStatus.ACTIVE, consensus=None, consensus_block=None, reveal_deadline=None)
        case events.TaskFinalize(results=results):
            return replace(view, status=TaskStatus.COMPLETED, results=results, finalized_block=item.block_number)
        case events.TaskClaimed():
            return replace(view, status=TaskStatus.FAILED, finalized_block=item.block_number)
        case _:
            return view


def _set_vote_status(view: ChainView, worker: Wallet, status: ContributionStatus) -> ChainView:
    """The view with this status for one worker's vote."""
    votes = tuple(replace(vote, status=status) if vote.worker == worker else vote for vote in view.contributions)
    return replace(view, contributions=votes)
