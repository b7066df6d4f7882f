"""Records as lines of the operator's API. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.api.admin.answers.pool import (
    DealLine,
    Moment,
    ReplicateLine,
    SubmissionLine,
    TaskLine,
    TaskShow,
    WorkerLine,
    WrongVote,
)
from pipeline.domain.machines.worker_state import state_of
from pipeline.domain.progress import PROVED
from pipeline.domain.records import DealRecord, Replicate, TaskRecord, WorkerRecord
from pipeline.domain.tries import failed_in_all
from pipeline.store.deals import StoredDeal
from protocol.poco import events
from protocol.poco.view import ChainView
from protocol.types import Wallet


def task_line(task: TaskRecord, why: str | None) -> TaskLine:
    """A task in a list. `why`: what it waits for, if it is not over."""
    return TaskLine(
        task_id=task.task_id,
        deal_id=task.deal_id,
        index=task.index,
        stage=str(task.stage),
        trust=task.trust,
        tag=task.tag,
        requester=task.requester,
        matched_block=task.matched_block,
        matched_at=task.matched_at,
        contribution_deadline=task.contribution_deadline,
        final_deadline=task.final_deadline,
        workers=len(task.replicates),
        why=why or task.why,
    )


def task_show(
    task: TaskRecord,
    deal: DealRecord | None,
    view: ChainView,
    seen: Iterable[events.Seen],
    names: Mapping[Wallet, str],
    why: str | None,
) -> TaskShow:
    """A task with its time line and its replicates. `view`, `seen`: the task on chain; `names`: of its machines."""
    return TaskShow(
        **task_line(task, why).model_dump(),
        image=None if deal is None else deal.image,
        category_seconds=task.category_seconds,
        consensus=view.consensus,
        result=task.results,
        moments=_moments(task, seen),
        replicates=[_replicate_line(item, view, names.get(item.wallet)) for item in task.replicates],
        submitted=[
            SubmissionLine(method=method, at=found.at, tries_failed=failed_in_all(task, method))
            for method, found in task.sent.items()
        ],
    )


def deal_line(stored: StoredDeal, open_tasks: int) -> DealLine:
    """A deal in a list."""
    deal = stored.record
    return DealLine(
        deal_id=stored.deal_id,
        state=stored.state,
        block=stored.block,
        why=stored.why,
        requester=None if deal is None else deal.requester,
        image=None if deal is None else deal.image,
        trust=None if deal is None else deal.trust,
        tag=None if deal is None else deal.tag,
        tasks=None if deal is None else deal.bot_size,
        open_tasks=open_tasks,
    )


def wrong_votes(seen: Iterable[events.Seen]) -> list[WrongVote]:
    """The votes among these events with which machines lost their stake."""
    return [
        WrongVote(wallet=item.event.worker, task_id=item.event.task_id, block=item.block_number, tx=item.tx_hash)
        for item in seen
        if isinstance(item.event, events.FaultyContribution)
    ]


def worker_line(worker: WorkerRecord, now: float, lost_after: float) -> WorkerLine:
    """A machine in a list. `now`: Unix seconds; `lost_after`: seconds of silence."""
    return WorkerLine(
        wallet=worker.wallet,
        name=worker.name,
        state=str(state_of(worker, now, lost_after)),
        version=worker.version,
        slots=worker.slots,
        usable_slots=worker.usable,
        operator_slots=worker.operator_slots,
        busy_slots=len(worker.held),
        unvoted=len(worker.pledged),
        successes=worker.successes,
        failures=worker.failures + worker.blamed,
        stake_nrlc=worker.facts.stake,
        native_wei=worker.facts.balance,
        tag=worker.tag,
        seen_at=worker.seen_at,
        rest_until=worker.rest_until,
        address=worker.address,
    )


def _replicate_line(item: Replicate, view: ChainView, name: str | None) -> ReplicateLine:
    """One worker's attempt at a task, with its vote on chain."""
    vote = view.contribution(item.wallet)
    return ReplicateLine(
        wallet=item.wallet,
        name=name,
        state=str(item.state),
        assigned_at=item.assigned_at,
        standing=item.standing.name.lower(),
        cause=item.cause,
        exit_code=item.exit_code,
        vote=None if vote is None else vote.status.name,
        result_stored=item.link is not None,
        reveal_asked_at=item.reveal_asked_at,
        upload_asked_at=item.upload_asked_at,
    )


def _moments(task: TaskRecord, seen: Iterable[events.Seen]) -> list[Moment]:
    """What happened to the task, in order: its match, reports of machines, and events on chain."""
    found = [Moment(at=float(task.matched_at), what="matched", block=task.matched_block)]
    for item in task.replicates:
        found.append(Moment(at=item.assigned_at, what="assigned", wallet=item.wallet))
        reported = {step: at for step, at in item.steps.items() if step not in PROVED}
        found += [Moment(at=at, what=f"reported {step.lower()}", wallet=item.wallet) for step, at in reported.items()]
    for event in seen:
        name = _NAMES.get(type(event.event))
        if name is not None:
            wallet = getattr(event.event, "worker", None)
            at, block = float(event.timestamp), event.block_number
            found.append(Moment(at=at, what=name, wallet=wallet, block=block, tx=event.tx_hash))
    return sorted(found, key=lambda moment: moment.at)


_NAMES: dict[type[object], str] = {
    events.TaskInitialize: "initialized",
    events.TaskContribute: "contributed",
    events.TaskConsensus: "consensus",
    events.TaskReveal: "revealed",
    events.TaskReopen: "reopened",
    events.TaskFinalize: "finalized",
    events.TaskClaimed: "claimed as failed",
    events.AccurateContribution: "was right and paid",
    events.FaultyContribution: "was wrong and lost its stake",
}
