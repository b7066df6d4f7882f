"""Visits tasks that are due: advances them, with the contract's state where an event may have been missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from pipeline.broker import notify
from pipeline.domain import progress
from pipeline.domain.records import ReplicateState, TaskRecord
from pipeline.domain.replicas import lacks_reopening
from pipeline.flow.advance import Decision, views
from pipeline.flow.advance_each import advance_each
from pipeline.scheduler import Scheduler
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.types import TaskId

log = structlog.get_logger(__name__)

#: Seconds without news of chain or worker after which the contract is asked about a task that should have moved.
MISSED_EVENT_SECONDS = 20.0


def visit(scheduler: Scheduler, due: Sequence[TaskId]) -> None:
    """Advance these tasks and note when to visit them again. Raises PyMongoError or an Unavailable."""
    tasks = scheduler.store.tasks.load_tasks(due)
    versions = {task.task_id: task.version for task in tasks}
    known = _contract_views(scheduler, tasks)
    for chunk in notify.chunks(due, notify.ADVANCE_CHUNK):
        now = scheduler.clock()
        steps = advance_each(scheduler, chunk, known)
        visits = {
            step.before.task_id: (step.before.version, _next_visit(scheduler, step, now))
            for step in steps
            if not step.changed and step.before.open
        }
        settled = {step.before.task_id for step in steps}
        # A task that could not be decided now is visited later, so that it displaces no other.
        later = now + progress.SOONEST_VISIT
        visits |= {task: (versions[task], later) for task in chunk if task in versions and task not in settled}
        scheduler.store.tasks.set_next_visits(visits)


def _next_visit(scheduler: Scheduler, step: Decision, now: float) -> float:
    """When the sweep visits a decided task again."""
    if step.put_off:
        return now + progress.SOONEST_VISIT
    return progress.next_visit(step.after, step.view, now, scheduler.timeouts)


def _contract_views(scheduler: Scheduler, tasks: Sequence[TaskRecord]) -> dict[TaskId, ChainView]:
    """Read from the contract the tasks that lack an expected event, and those with a log that cannot be read.

    Returns the views that are ahead of the stored logs, and those of unreadable logs.

    Empty while the node does not answer.
    """
    now = scheduler.clock()
    quiet = [
        task for task in tasks if task.reopened or now >= max(task.heard_at, task.matched_at) + MISSED_EVENT_SECONDS
    ]
    folded = views(scheduler, quiet) if quiet else {}
    unread = [task.task_id for task in quiet if task.task_id not in folded]
    suspected = [
        task.task_id for task in quiet if task.task_id in folded and _should_have_moved(task, folded[task.task_id])
    ]
    if not suspected and not unread:
        return {}
    try:
        read = scheduler.hub.tasks([*suspected, *unread])
    except (RpcUnavailable, RpcError) as error:
        why = str(error)
        log.warning(
            "The node cannot be asked about suspected events.", action="suspects_unread", tasks=len(suspected), why=why
        )
        return {}
    read_views = {view.task_id: view for view in read}
    ahead = [task for task in suspected if _ahead(read_views[task], folded[task])]
    if ahead:
        log.warning("The contract is ahead of the logs.", action="late_find", tasks=sorted(ahead))
    # Of a reopening that the logs lack, the contract alone says whether it still stands.
    reopened = [
        task.task_id for task in quiet if task.task_id in folded and lacks_reopening(task, folded[task.task_id])
    ]
    merged = {task: _merged(read_views[task], folded[task]) for task in (*ahead, *reopened)}
    return merged | {task: read_views[task] for task in unread}


def _should_have_moved(task: TaskRecord, view: ChainView) -> bool:
    """Whether an event is awaited: of a submitted transaction, a reveal, or the vote of a worker that computed; or
    whether one is known to be missing.
    """
    if lacks_reopening(task, view):
        return True
    waits_for_vote = any(
        item.state is ReplicateState.COMPUTED and view.contribution(item.wallet) is None for item in task.replicates
    )
    return progress.awaited(task, view) or view.status is TaskStatus.REVEALING or waits_for_vote


def _ahead(view: ChainView, folded: ChainView) -> bool:
    """Whether the contract's view shows an event that the stored logs (`folded`) lack."""
    return _progress(view) > _progress(folded)


def _progress(view: ChainView) -> tuple[int, int, int, int]:
    """Rejected votes, status, votes and reveals on chain, to compare with those seen before: a reopening, which rejects
    votes, is the only step that leads back to an earlier status.
    """
    rejected = sum(vote.status is ContributionStatus.REJECTED for vote in view.contributions)
    return rejected, view.status, len(view.contributions), len(view.revealed)


def _merged(view: ChainView, folded: ChainView) -> ChainView:
    """The contract's view with the blocks that only logs know."""
    return replace(
        view,
        initialized_block=folded.initialized_block,
        initialized_at=folded.initialized_at,
        consensus_block=folded.consensus_block,
        finalized_block=folded.finalized_block,
    )
