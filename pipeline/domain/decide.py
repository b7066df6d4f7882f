"""What to do about one task: a pure, total function of its record, the chain and the time.

    UNSET      initialize, and have workers compute meanwhile
    ACTIVE     keep enough workers at it
    REVEALING  have winners reveal and one upload, then finalize; reopen if nobody reveals in time
    any        past the final deadline: claim, so that stakes are unlocked
    ended      free what it holds

An event, a report and the sweep all call it the same way. Asking twice is harmless, so whatever shows no effect is
asked again at a measured pace; nothing here relies on a message having arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from chain.lane.model.intent import BEHIND, UNTIL
from pipeline.domain import enclaves, outcomes, replicas, tries
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
    Pledge,
    Resend,
    Resume,
    Stop,
    Submit,
    Want,
)
from pipeline.domain.causes import causes, why_failed
from pipeline.domain.outcomes import Trouble
from pipeline.domain.records import Outcome, Replicate, ReplicateState, Standing, TaskRecord, TaskStage
from pipeline.domain.replicas import Timeouts
from pipeline.domain.uploader import next_uploader
from protocol.ethereum.hexbytes import to_hex
from protocol.poco.view import ChainView, Contribution, ContributionStatus, TaskStatus
from protocol.results.error_result import blames_task
from protocol.wire import Mode, Step

#: Seconds a deal may be off the chain after a reorg before its tasks end as FAILED.
ORPHAN_TIMEOUT = 600.0
#: Why these tasks ended; by it they are found if the deal comes back after all.
ORPHANED_FOR_GOOD = "The deal's block left the chain in a reorganisation and did not come back."

_ENDED = {TaskStatus.COMPLETED: TaskStage.COMPLETED, TaskStatus.FAILED: TaskStage.FAILED}


def decide(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> list[Action]:
    """Every action due now, in the order to carry them out. `now`: Unix seconds; deadlines go by the chain's time where
    the view has it.
    """
    return list(_due_actions(task, view, now, timeouts))


def decide_excusing(
    task: TaskRecord,
    view: ChainView,
    now: float,
    timeouts: Timeouts,
    trouble: Callable[[TaskRecord, Sequence[Action]], Trouble],
) -> list[Action]:
    """As `decide`, but nothing that an outage of the pool caused counts against a worker.

    `trouble` loads the outages; it is called only if they may change an action.
    """
    actions = decide(task, view, now, timeouts)
    if not any(map(outcomes.depends_on_trouble, actions)):
        return actions
    found = trouble(task, actions)
    actions = decide(task, view, now, replace(timeouts, unheard_at=found.unheard_at))
    return outcomes.excused(task, view, actions, found, now, timeouts)


def can_change_decision(step: Step, mode: Mode, *, early_steps: bool = False) -> bool:
    """Whether a worker's report of `step` can change what `decide` returns, so that the task is advanced at once.

    All other steps are seen on chain, or change nothing. `early_steps`: whether steps may go out behind others that are
    not in a block yet (SLUICE_STATE=pending).
    """
    voting = mode is Mode.VOTE and (step is Step.UPLOADED or (early_steps and step is Step.REVEALED))
    return step in (Step.COMPUTED, Step.FAILED) or voting


def frees_slot(replicate: Replicate, step: Step, cause: str | None) -> bool:
    """Whether this report alone gives the replicate's slot back, without a look at the chain: only COMPUTED of a
    machine that works alone and was right on chain before. `replicate`: as it was before the report; `cause`: of the
    report.
    """
    return (
        step is Step.COMPUTED
        and cause is None
        and replicate.mode is Mode.SOLO
        and replicate.standing is Standing.PROVEN
        and replicate.holds_slot
        and replicate.live
    )


def nothing_else_to_decide(task: TaskRecord) -> bool:
    """Whether `decide` would find nothing to do for the task, after a report that frees its slot (`frees_slot`), until
    the chain shows something new. `task`: as it was before the report.
    """
    return task.open and not task.orphaned and not task.wants and len(task.replicates) == 1


def _due_actions(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Iterator[Action]:
    """The actions of `decide`, by what the chain says of the task: ended, not initialized, active, revealing."""
    if task.orphaned:
        yield from _orphaned(task, now)
        return
    task = replicas.as_on_chain(task, view)
    if view.status in _ENDED:
        yield from _ended(task, view, now, timeouts)
        return
    if not task.open or task.stage in _ENDED.values():
        yield Resume()
    never = view.status is TaskStatus.UNSET and view.past(task.final_deadline, now)
    if never and tries.exhausted(task, tries.TO_CLAIM):
        yield from _never_was(task, view, now, timeouts)
        return
    unknown = [vote.worker for vote in view.contributions if task.replicate(vote.worker) is None]
    yield from (AddVoter(wallet) for wallet in unknown)
    task = replace(
        task, replicates=(*task.replicates, *(replicas.replicate_of_voter(task, wallet, now) for wallet in unknown))
    )
    yield from _free(task, view)
    yield from _drop_late(task, view, now, timeouts)
    match view.status:
        case TaskStatus.UNSET:
            yield from _unset(task, view, now, timeouts)
        case TaskStatus.ACTIVE:
            yield from _active(task, view, now, timeouts)
        case TaskStatus.REVEALING:
            yield from _revealing(task, view, now, timeouts)
    yield from _ask_for_workers(task, view, now, timeouts)


def _unset(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Iterator[Action]:
    """The actions for a task that is not on chain yet."""
    args: dict[str, str | int] = {"deal_id": task.deal_id, "index": task.index}
    if not view.past(task.contribution_deadline, now):
        until = {tries.DEADLINE: task.contribution_deadline}
        yield from _submit(task, Method.INITIALIZE, 0, args | until, now, timeouts)
    elif view.past(task.final_deadline, now):
        # The stakes of a task that never was initialized are only freed by initialize and claim.
        yield from _submit(task, Method.INITIALIZE, tries.FIRST_TO_CLAIM, args, now, timeouts, name=tries.TO_CLAIM)


def _active(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Iterator[Action]:
    """The actions for a task open for votes: workers that can no longer vote stop; past its end it is claimed."""
    if task.mode is Mode.VOTE:
        yield from _abort(task, view, "Since it was reopened, it is decided by votes.", Mode.SOLO)
    if view.past(task.final_deadline, now):
        yield from _submit(task, Method.CLAIM, 0, {}, now, timeouts)


def _revealing(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Iterator[Action]:
    """The actions for a task whose votes agree: ask winners, reopen, finalize or claim."""
    if view.past(task.final_deadline, now):
        yield from _submit(task, Method.CLAIM, 0, {}, now, timeouts)
        return
    yield from _abort(task, view, "Consensus was reached without it.")
    over = view.reveal_deadline is not None and view.past(view.reveal_deadline, now)
    result = replicas.usable_result(task, view)
    yield from _ask_winners(task, view, now, timeouts, reveal=not over, upload=result is None)
    if over and not view.revealed:
        # Votes can only come again before the contribution deadline; later, a reopened task is as good as lost.
        if not view.past(task.contribution_deadline, now):
            yield from _submit(task, Method.REOPEN, _rejected(view), {}, now, timeouts)
        return
    settled = over or len(view.revealed) == len(view.winners)
    if result is not None and result.link is not None and (settled or _reveals_sent(task, view, timeouts)):
        callback = result.callback_data if task.has_callback and result.callback_data else "0x"
        args: dict[str, str | int] = {
            "results": to_hex(result.link.model_dump_json().encode()),
            "callback": callback,
            # After a reorg the votes may agree on another result, and the contract compares no link with it.
            "consensus": str(view.consensus),
        }
        if not settled and view.reveal_deadline is not None:
            # Should nobody reveal after all, the task is reopened, and the next consensus has a finalize of its own.
            args[UNTIL] = view.reveal_deadline
            args[BEHIND] = ",".join(vote.worker for vote in view.winners)
        yield from _submit(task, Method.FINALIZE, _rejected(view), args, now, timeouts)


def _reveals_sent(task: TaskRecord, view: ChainView, timeouts: Timeouts) -> bool:
    """Whether every winner has revealed or reports that it has sent its reveal, so that finalize may follow the last.
    The lane asks the chain before it sends.
    """
    if not timeouts.early_steps or view.time is not None:
        # The time limit of an early finalize goes by the clock.
        return False
    waiting = [vote.worker for vote in view.winners if vote.status is ContributionStatus.CONTRIBUTED]
    found = [task.replicate(wallet) for wallet in waiting]
    return all(item is not None and Step.REVEALED in item.steps for item in found)


def _ask_winners(
    task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts, *, reveal: bool, upload: bool
) -> Iterator[Action]:
    """Ask each winner to reveal, and one of them at a time to upload its result."""
    uploader = next_uploader(task, view, now, timeouts) if upload else None
    revealers = [vote.worker for vote in view.winners if reveal and _reveal_is_due(task, vote, now, timeouts)]
    for wallet in revealers:
        yield AskReveal(wallet, upload=wallet == uploader)
    if uploader is not None and uploader not in revealers:
        yield AskUpload(uploader)


def _abort(task: TaskRecord, view: ChainView, why: str, mode: Mode | None = None) -> Iterator[Action]:
    """Stop workers that still compute, since the result is decided without them; `why`: for their replicates; `mode`:
    only those of this mode.
    """
    for item in task.replicates:
        if item.live and view.contribution(item.wallet) is None and mode in (None, item.mode):
            yield Drop(item.wallet, ReplicateState.ABORTED, why)
            yield Stop(item.wallet)
            if item.holds:
                yield Free(item.wallet)


def _reveal_is_due(task: TaskRecord, vote: Contribution, now: float, timeouts: Timeouts) -> bool:
    """Whether a winner is to be asked to reveal, for the first time or again."""
    replicate = task.replicate(vote.worker)
    if replicate is None or vote.status is not ContributionStatus.CONTRIBUTED:
        return False
    return replicate.reveal_asked_at is None or not replicas.waits(replicate.reveal_asked_at, timeouts.reask, now)


def _ask_for_workers(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Iterator[Action]:
    """How many more workers the task wants (`Want`; `pipeline.flow.assign` finds them), and compute segments to publish
    again. If workers fail or blame the task, also why it has no vote.
    """
    wanted = replicas.wanted(task, view, now, timeouts)
    if wanted != Want(task.wants, task.leading, task.others, task.backup, task.newcomers):
        yield wanted
    if view.status not in (TaskStatus.UNSET, TaskStatus.ACTIVE) or view.past(task.contribution_deadline, now):
        return
    due = enclaves.challenge_due(task, view, timeouts)
    if due is not None and now >= due:
        yield AskChallenge()
    for item in task.replicates:
        late = replicas.late(task, item, view, now, timeouts)
        if (
            item.state is ReplicateState.ASSIGNED
            and not late
            and now >= item.published_at + timeouts.resend(item.resends)
        ):
            yield Resend(item.wallet)
    if replicas.given_up(task, view, now, timeouts):
        why = f"Given up: {causes(task)}."
        if task.why != why:
            yield Explain(why)
    elif not view.contributions and not replicas.pending(task, view, now, timeouts):
        yield from _no_result_yet(task)


def _no_result_yet(task: TaskRecord) -> Iterator[Action]:
    """Explain a task without votes where every worker blames the task: e.g. an app without the callback data of its
    deal.
    """
    failed = [item for item in task.replicates if item.state is ReplicateState.FAILED]
    if failed and all(blames_task(item.cause) for item in failed):
        why = f"No result yet: {causes(task)}."
        if task.why != why:
            yield Explain(why)


def _free(task: TaskRecord, view: ChainView) -> Iterator[Action]:
    """Free slots and stakes. A slot is for computing: it is free as soon as that is over; the stake when the vote is
    seen or will not come.

    A worker that was never right on chain gets its slot back once it has revealed: with votes that it does not reveal,
    or with none, it can hold up no more tasks than it has slots.
    """
    for item in task.replicates:
        vote = view.contribution(item.wallet)
        proven = item.standing is Standing.PROVEN
        over = vote is not None and (proven or vote.status is not ContributionStatus.CONTRIBUTED)
        if item.holds and (not item.live or over):
            yield Free(item.wallet, outcomes.at_release(task, item, view))
        elif item.holds_slot and item.state is ReplicateState.COMPUTED and proven:
            yield Pledge(item.wallet)


def _drop_late(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Iterator[Action]:
    """Drop replicates that take too long, and free their slots; a vote that still comes counts. A vote, reveal or
    upload that was asked for and did not come is counted against the worker.
    """
    for item in task.replicates:
        if outcomes.owes_vote(task, item, view, now, timeouts):
            # Its vote is still welcome, and until it is seen its stake counts as promised.
            yield Count(item.wallet, Outcome.LATE)
        if outcomes.withholds_vote(item, view):
            yield Count(item.wallet, Outcome.WITHHELD)
        computing = item.state in (ReplicateState.ASSIGNED, ReplicateState.STARTED)
        if not computing or view.contribution(item.wallet) is not None:
            continue
        if replicas.late(task, item, view, now, timeouts):
            yield Drop(item.wallet, ReplicateState.LOST, replicas.TOO_LATE)
            yield Stop(item.wallet)
            if item.holds:
                yield Free(item.wallet, Outcome.FAILED)


def _submit(
    task: TaskRecord,
    method: Method,
    round_: int,
    args: dict[str, str | int],
    now: float,
    timeouts: Timeouts,
    *,
    name: str | None = None,
) -> Iterator[Action]:
    """Submit a transaction, unless this try of it was submitted lately; a new try follows each failure and reopening.

    The number of the try only grows, so none is mistaken for an older one. Handing the same one over again after a
    while finds intents that were lost, or whose failure was missed. `name`: under which its failures are counted.
    """
    name = name or method
    failed, late = tries.refused(task, name), tries.too_late(task, method)
    generation = failed + late + round_
    sent = task.sent.get(method)
    # An early finalize whose winners do not reveal after all fails with the reveal deadline: that says nothing of the
    # next consensus, which is another round.
    refused = failed - round_ if method is Method.FINALIZE else failed
    if refused >= tries.MAX_FAILED_INTENTS and not (
        tries.goes_on(name) and now >= task.changed_at + tries.pause_after(failed)
    ):
        return
    if late and (tries.DEADLINE in args or UNTIL in args) and replicas.waits(task.changed_at, timeouts.resubmit, now):
        # By the chain, the time limit was over already.
        return
    if sent is None or sent.generation < generation or not replicas.waits(sent.at, timeouts.resubmit, now):
        yield Submit(method, generation, args, again=sent is not None and sent.generation >= generation)


def _rejected(view: ChainView) -> int:
    """How many votes the contract has rejected. Each reopening rejects one or more, so this tells reopenings apart."""
    return sum(vote.status is ContributionStatus.REJECTED for vote in view.contributions)


def _orphaned(task: TaskRecord, now: float) -> Iterator[Action]:
    """The actions for a task whose deal a reorg has removed."""
    if task.wants:
        yield Want(0)
    if task.open and now >= task.changed_at + ORPHAN_TIMEOUT:
        yield from (Free(item.wallet) for item in task.replicates if item.holds)
        yield End(TaskStage.FAILED, ORPHANED_FOR_GOOD)


def _never_was(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Iterator[Action]:
    """The actions for a task whose initialize the contract refuses even if it is only to be claimed: it gives back what
    it holds, and is tried again now and then, since only that frees the stakes.
    """
    if task.wants:
        yield Want(0)
    yield from _abort(task, view, "The task was never initialized.")
    yield from (Free(item.wallet) for item in task.replicates if item.holds and not item.live)
    yield from _unset(task, view, now, timeouts)


def _ended(task: TaskRecord, view: ChainView, now: float, timeouts: Timeouts) -> Iterator[Action]:
    """The actions for a task that the chain has ended."""
    stage = _ENDED[view.status]
    if task.wants:
        yield Want(0)
    yield from _abort(task, view, "The task ended without it.")
    ending = task.open or task.stage is not stage
    for item in task.replicates:
        outcome = outcomes.at_end(task, item, view, now, timeouts) if ending else Outcome.NEUTRAL
        over = view.contribution(item.wallet) is not None or not item.live
        if outcome.apart_from_slot or (item.holds and over):
            yield Free(item.wallet, outcome)
    if ending:
        yield End(stage, None if stage is TaskStage.COMPLETED else why_failed(task, view, timeouts))
