"""What a task's record becomes when actions are carried out, and when the sweep visits it next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.domain.actions import (
    Action,
    AddVoter,
    AskChallenge,
    AskReveal,
    AskUpload,
    Count,
    Drop,
    End,
    Explain,
    Free,
    Method,
    OfReplicate,
    Pledge,
    Postpone,
    Resend,
    Resume,
    Stop,
    Submit,
    Want,
)
from pipeline.domain.enclaves import challenge_due
from pipeline.domain.records import Replicate, Submission, TaskRecord, TaskStage
from pipeline.domain.replicas import Timeouts, as_on_chain, proven_until, replicate_of_voter, usable_result
from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_bytes
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.types import BlockNumber
from protocol.wire import Mode, Step

#: Steps that the chain shows.
PROVED = frozenset((Step.CONTRIBUTED, Step.REVEALED))
#: The sweep visits a task again after half the time that nothing happened to it, within these seconds: soon after a
#: change, when a lost message hurts most, and rarely when it waits for hours.
SOONEST_VISIT, LATEST_VISIT = 5.0, 60.0
#: Seconds between two visits of a task that only waits for a worker to be free: matching finds it by itself.
IDLE_VISIT = 900.0


def after(task: TaskRecord, view: ChainView, actions: Sequence[Action], now: float, timeouts: Timeouts) -> TaskRecord:
    """The record once `actions` are carried out; the same object if nothing changed."""
    moved = task
    for action in actions:
        moved = _apply(moved, action, now)
    moved = _follow(moved, view, now)
    if moved.progress != task.progress:
        moved = replace(moved, heard_at=now)
    if moved == task:
        return task
    moved = replace(moved, changed_at=now)
    return replace(moved, next_visit=next_visit(moved, view, now, timeouts))


def next_visit(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> float:
    """When the sweep visits the task next if no event or report comes: the first deadline ahead, or an interval."""
    quiet = (now - task.changed_at) / 2
    soonest = max(SOONEST_VISIT, timeouts.reask)
    pause = IDLE_VISIT if _idle(task, view) else min(max(quiet, soonest), max(LATEST_VISIT, soonest))
    # One that has passed by our clock only is looked for soon.
    deadlines = (task.contribution_deadline, task.final_deadline, view.reveal_deadline)
    ahead = [it for it in deadlines if it is not None and not view.past(it, now)]
    times = [now + pause, *(float(it) if it > now else now + LATEST_VISIT for it in ahead)]
    waits = [proven_until(task, timeouts), challenge_due(task, view, timeouts) or 0.0]
    return min([*times, *(at for at in waits if at > now)])


def awaited(task: TaskRecord, view: ChainView) -> bool:
    """Whether a transaction was submitted whose effect the chain does not show yet."""
    return any(method != Method.INITIALIZE or view.status is TaskStatus.UNSET for method in task.sent)


def _idle(task: TaskRecord, view: ChainView) -> bool:
    """Whether the task changes only by a free worker, a requester or a deadline."""
    under_way = any(item.live or item.holds for item in task.replicates)
    return view.status in (TaskStatus.UNSET, TaskStatus.ACTIVE) and not (
        under_way or awaited(task, view) or view.contributions or task.orphaned
    )


def _apply(task: TaskRecord, action: Action, now: float) -> TaskRecord:
    """The task once an action is carried out."""
    match action:
        case Submit(method=method, generation=generation):
            sent = replace(task, sent={**task.sent, str(method): Submission(generation, now)})
            return replace(sent, unserved=False, not_before=0.0) if task.unserved else sent
        case Postpone():
            # Nor is it matched: whoever looks for tasks to give out passes over it, however many there are.
            return replace(task, unserved=True, not_before=float(task.contribution_deadline))
        case Want(count=count, leading=leading, others=others, backup=backup, newcomers=newcomers):
            return replace(task, wants=count, leading=leading, others=others, backup=backup, newcomers=newcomers)
        case AddVoter(wallet=wallet):
            return replace(task, replicates=(*task.replicates, replicate_of_voter(task, wallet, now)))
        case AskChallenge():
            return replace(task, challenge_tries=task.challenge_tries + 1, challenge_asked_at=now)
        case Explain(why=why):
            return replace(task, why=why)
        case Resume():
            return replace(task, open=True, why=None, results=None)
        case End(stage=stage, why=why):
            return replace(task, open=False, stage=stage, wants=0, why=why, unserved=False)
        case Stop():
            return task
        case _:
            replicates = (
                _moved(item, action, now) if item.wallet == action.wallet else item for item in task.replicates
            )
            return replace(task, replicates=tuple(replicates))


def _moved(replicate: Replicate, action: OfReplicate, now: float) -> Replicate:
    """The replicate once an action about it is carried out."""
    match action:
        case Resend():
            return replace(replicate, published_at=now, resends=replicate.resends + 1)
        case AskReveal(upload=True):
            return replace(replicate, reveal_asked_at=now, upload_asked_at=now)
        case AskReveal():
            return replace(replicate, reveal_asked_at=now)
        case AskUpload():
            return replace(replicate, upload_asked_at=now)
        case Drop(state=state, why=why):
            return replace(replicate, state=state, cause=replicate.cause or why)
        case Free(outcome=outcome):
            counted = (*replicate.counted, *([outcome] if outcome.apart_from_slot else []))
            return replace(replicate, holds_slot=False, pledged=False, counted=counted)
        case Pledge():
            return replace(replicate, holds_slot=False, pledged=True)
        case Count(outcome=outcome):
            return replace(replicate, counted=(*replicate.counted, outcome))


def _follow(task: TaskRecord, view: ChainView, now: float) -> TaskRecord:
    """The task with what the API shows of the chain: its stage, blocks and results, and who voted and revealed."""
    begun, agreed = view.status is not TaskStatus.UNSET, view.consensus is not None
    return replace(
        as_on_chain(task, view),
        stage=_stage(task, view),
        progress=(int(view.status), len(view.contributions), len(view.revealed)),
        initialized_block=_block(view.initialized_block, task.initialized_block, known=begun),
        consensus_block=_block(view.consensus_block, task.consensus_block, known=agreed),
        finalized_block=_block(view.finalized_block, task.finalized_block, known=not task.open),
        results=_text(view.results) if view.status is TaskStatus.COMPLETED else None,
        replicates=tuple(_proved(item, view, now) for item in task.replicates),
    )


def _proved(replicate: Replicate, view: ChainView, now: float) -> Replicate:
    """The replicate with the steps that the chain shows, unless they were noted before; machines need not report them.

    The same object if there is nothing new.
    """
    vote = view.contribution(replicate.wallet)
    shown = [] if vote is None else [Step.CONTRIBUTED]
    if vote is not None and replicate.mode is Mode.VOTE and vote.status is ContributionStatus.REVEALED:
        shown.append(Step.REVEALED)
    new = {step: now for step in shown if step not in replicate.steps}
    return replace(replicate, steps={**replicate.steps, **new}) if new else replicate


def _block(new: BlockNumber | None, before: BlockNumber | None, *, known: bool) -> BlockNumber | None:
    """The block of an event. A contract view has none: one read from logs before is kept while it is valid."""
    return new if new is not None else (before if known else None)


def _stage(task: TaskRecord, view: ChainView) -> TaskStage:
    """The stage of a task by its state on chain."""
    match view.status:
        case TaskStatus.COMPLETED:
            return TaskStage.COMPLETED
        case TaskStatus.FAILED:
            return TaskStage.FAILED
        case _ if not task.open:
            return task.stage
        case TaskStatus.UNSET:
            return TaskStage.RECEIVED
        case TaskStatus.ACTIVE:
            return TaskStage.RUNNING if task.replicates else TaskStage.INITIALIZED
        case TaskStatus.REVEALING:
            return _revealing_stage(task, view)


def _revealing_stage(task: TaskRecord, view: ChainView) -> TaskStage:
    """The stage of a task whose votes agree."""
    if not view.revealed:
        return TaskStage.CONSENSUS_REACHED
    if Method.FINALIZE in task.sent:
        return TaskStage.FINALIZING
    return TaskStage.RESULT_UPLOADED if usable_result(task, view) else TaskStage.AT_LEAST_ONE_REVEALED


def _text(results: str) -> str:
    """`results` on chain as text, with bytes that are not UTF-8 replaced: they may be anything."""
    try:
        return to_bytes(results).decode(errors="replace")
    except BadMessage:
        return results
