"""What the end of a replicate counts as for its worker, and when the pool itself is to blame. Pure.

    slot free        FAILED or BLAMED by its report; NEUTRAL otherwise
    computed, and no vote for `contribute_timeout`                       LATE; alone, from when its result was coming in
    task reopened    WITHHELD if it was asked to reveal its vote; it is held to nothing more when the task ends
    task completed   VOTED or PAID; LATE if another winner had to bring the result in its place; WRONG if it voted for
                     another result; WITHHELD if it was asked to reveal its vote and did not
    task failed      WITHHELD if it was asked to reveal its vote and did not, or was asked for the result

Nothing is held against anybody while the pool could not store results, could not be reached, or saw no blocks; work
that could not be reported meanwhile is not taken away either. A winner that is bringing another task's result is not
late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.domain import replicas
from pipeline.domain.actions import Action, Count, Drop, Free
from pipeline.domain.records import CLOCKS_APART, Outcome, Replicate, ReplicateState, TaskRecord
from pipeline.domain.replicas import Timeouts
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.results.error_result import counts_against_machine
from protocol.types import Wallet
from protocol.wire import Mode

#: Outcomes that an outage of the pool may have caused, beside replicates that are dropped for silence.
_EXCUSABLE = {Outcome.LATE, Outcome.WITHHELD}


@dataclass(frozen=True, slots=True)
class Trouble:
    """The pool's own outages. Unix seconds."""

    #: When machines could last not be heard; 0: never.
    unheard_at: float
    #: Time of the newest block whose events are stored; 0: none.
    block_at: float
    #: Winners that were bringing another task's result when this one's was awaited: a machine brings one at a time
    #: while all its slots compute.
    uploading: frozenset[Wallet] = frozenset()
    #: When blocks were seen again after the last while without any; 0: never.
    blocks_again_at: float = 0.0


def at_release(task: TaskRecord, item: Replicate, view: ChainView) -> Outcome:
    """The outcome when a replicate gives its slot back: FAILED or BLAMED if its worker reported that it failed.

    NEUTRAL if others decided the task, and if it voted: `at_end` judges votes.
    """
    if view.contribution(item.wallet) is not None or Outcome.LATE in item.counted:
        return Outcome.NEUTRAL
    if item.state is not ReplicateState.FAILED or not replicas.takes_votes(task, view):
        return Outcome.NEUTRAL
    return Outcome.FAILED if counts_against_machine(item.cause) else Outcome.BLAMED


def owes_vote(task: TaskRecord, item: Replicate, view: ChainView, now: float, timeouts: Timeouts) -> bool:
    """Whether a worker that reported COMPUTED could have voted, and has not for `contribute_timeout`: LATE."""
    if item.state is not ReplicateState.COMPUTED or view.contribution(item.wallet) is not None:
        return False
    if view.status is not TaskStatus.ACTIVE or not replicas.takes_votes(task, view) or _hindered(task):
        return False
    if item.mode not in (task.mode, Mode.VOTE):
        # It cannot vote any more.
        return False
    # The task may have got on chain late.
    able = max(replicas.able_since(item, view), task.heard_at)
    return Outcome.LATE not in item.counted and now > able + timeouts.contribute_timeout


def withholds_vote(item: Replicate, view: ChainView) -> bool:
    """Whether the task was reopened because the worker did not reveal its winning vote when asked to: WITHHELD.

    It counts at once, since others may need weeks to end the task.
    """
    vote = view.contribution(item.wallet)
    rejected = vote is not None and vote.status is ContributionStatus.REJECTED
    return rejected and item.reveal_asked_at is not None and Outcome.WITHHELD not in item.counted


def at_end(task: TaskRecord, item: Replicate, view: ChainView, now: float, timeouts: Timeouts) -> Outcome:
    """The outcome of a worker's vote once the task has ended; NEUTRAL without a vote, or if it was counted before."""
    outcome = _at_end(task, item, view, now, timeouts)
    return Outcome.NEUTRAL if outcome in item.counted else outcome


def _at_end(task: TaskRecord, item: Replicate, view: ChainView, now: float, timeouts: Timeouts) -> Outcome:
    """The outcome of a worker's vote once the task has ended, counted before or not."""
    vote = view.contribution(item.wallet)
    if vote is None:
        return Outcome.NEUTRAL
    if vote.status is ContributionStatus.REJECTED:
        # It had won, and nobody revealed: it was not wrong, whatever others agreed on since.
        return _if_asked_to_reveal(item)
    if vote not in view.winners:
        return Outcome.WRONG if view.status is TaskStatus.COMPLETED else Outcome.NEUTRAL
    revealed, alone = vote.status is ContributionStatus.REVEALED, item.mode is Mode.SOLO
    if not (revealed or alone):
        # Of a vote that was not revealed in time the contract makes a wrong one, and all have waited for it.
        return _if_asked_to_reveal(item)
    # Where the pool could not store what one of them brought, the others' uploads might have failed too.
    asked_at = None if _hindered(task) else item.upload_asked_at
    if view.status is TaskStatus.COMPLETED:
        if alone:
            return Outcome.PAID
        left = asked_at is not None and _left_to_others(item) and now >= asked_at + timeouts.upload_timeout
        return Outcome.LATE if left else Outcome.VOTED
    # Alone, the result is part of the transaction that votes: a vote without it was never meant to be completed.
    withheld = (asked_at is not None or alone) and replicas.usable_result(task, view) is None
    return Outcome.WITHHELD if withheld else Outcome.NEUTRAL


def _if_asked_to_reveal(item: Replicate) -> Outcome:
    """WITHHELD if the winner was asked to reveal, else NEUTRAL: it reveals unasked too, but an outage that kept the
    pool from asking may have kept the worker from revealing.
    """
    return Outcome.NEUTRAL if item.reveal_asked_at is None else Outcome.WITHHELD


def _left_to_others(item: Replicate) -> bool:
    """Whether the worker sent no byte of its result. A large one may be on its way while another winner's is stored."""
    return item.link is None and item.upload_begun_at is None


def _hindered(task: TaskRecord) -> bool:
    """Whether the pool itself once could not store a result of the task."""
    return any(item.not_stored_at is not None for item in task.replicates)


def is_held_against(action: Action) -> bool:
    """Whether the action counts against a worker, and an outage of the pool may be the cause."""
    return isinstance(action, Count | Free) and action.outcome in _EXCUSABLE


def depends_on_trouble(action: Action) -> bool:
    """Whether an outage of the pool may change the action."""
    return is_held_against(action) or (isinstance(action, Drop) and action.why == replicas.TOO_LATE)


def late_winners(actions: Sequence[Action]) -> list[Wallet]:
    """Winners that these actions count as LATE: another winner had to upload the result in their place."""
    return [action.wallet for action in actions if isinstance(action, Free) and action.outcome is Outcome.LATE]


def excused(
    task: TaskRecord, view: ChainView, actions: Sequence[Action], trouble: Trouble, now: float, timeouts: Timeouts
) -> list[Action]:
    """The actions, without those that count against a worker what an outage of the pool may have caused."""
    return [
        kept
        for action in actions
        if (kept := _excused(task, view, action, trouble, now, timeouts) if is_held_against(action) else action)
        is not None
    ]


def _excused(
    task: TaskRecord, view: ChainView, action: Action, trouble: Trouble, now: float, timeouts: Timeouts
) -> Action | None:
    """The action, or a milder one, or None if the pool's own trouble is the reason for it."""
    assert isinstance(action, Count | Free)
    blind = now > trouble.block_at + timeouts.upload_timeout
    # The first block after a while without any may end the time for what none could do meanwhile. A moment that is
    # still to come is of a clock that was wrong.
    outages, since = (trouble.unheard_at, trouble.blocks_again_at), _since(task, view, action.wallet)
    hindered = any(since <= ended <= now + CLOCKS_APART for ended in outages)
    item = task.replicate(action.wallet)
    # Alone, a machine that votes instead of finalizing has nobody else to blame.
    alone = item is not None and item.mode is Mode.SOLO and action.outcome is Outcome.WITHHELD
    busy = isinstance(action, Free) and action.outcome is Outcome.LATE and action.wallet in trouble.uploading
    if alone or not (blind or hindered or busy):
        return action
    if isinstance(action, Count):
        return None
    return replace(action, outcome=Outcome.VOTED if action.outcome is Outcome.LATE else Outcome.NEUTRAL)


def _since(task: TaskRecord, view: ChainView, wallet: Wallet) -> float:
    """Since when the worker's next step (vote, reveal or upload) is awaited, Unix seconds."""
    item, vote = task.replicate(wallet), view.contribution(wallet)
    assert item is not None
    if vote is not None and vote.status is not ContributionStatus.REVEALED and item.reveal_asked_at is not None:
        return item.reveal_asked_at
    return item.upload_asked_at or replicas.vote_due_since(item)
