"""Route of a worker's report on its own task. A report is a hint: the chain decides."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter

from config.early_steps import early_steps
from config.metrics import REPORTS
from pipeline.api.auth.access import Access, SignedInLately
from pipeline.domain.decide import can_change_decision, frees_slot, nothing_else_to_decide
from pipeline.domain.kept_output import kept_output
from pipeline.domain.records import Replicate, TaskRecord
from pipeline.domain.replicas import replicate_of_voter
from protocol.errors import NotFound, Refused
from protocol.poco.view import ChainView, fold
from protocol.types import TaskId, Wallet
from protocol.wire import HexId, Report, Step

router = APIRouter(tags=["workers"])


@router.post("/tasks/{task_id}/reports", status_code=204, summary="Report a step")
def report(task_id: HexId, request: Report, wallet: SignedInLately, services: Access) -> None:
    """Note a step of a task that was given to this wallet. Repeating a report is accepted and changes nothing."""
    now, task_id = services.clock(), TaskId(task_id)
    noted = partial(
        services.store.tasks.record_report,
        task_id,
        wallet,
        request.step,
        now,
        request.cause,
        request.exit_code,
        _began(request, now),
    )
    before = noted()
    replicate = None if before is None else before.replicate(wallet)
    if before is None or replicate is None:
        # Noted already, or it is not this wallet's, or this database does not know yet that it is.
        task, own = own_replicate(services, task_id, wallet)
        _keep_output(services, task, own, request, now)
        before = None if request.step in own.steps else noted()
        replicate = None if before is None else before.replicate(wallet)
    else:
        # After the step, which is cheaper; a crash in between has the machine report it again.
        _keep_output(services, before, replicate, request, now)
    if before is not None and replicate is not None:
        if request.step is Step.COMPUTED:
            # At once: the machine's upload is on its way.
            services.computed.put(before, replicate, now)
        if frees_slot(replicate, request.step, request.cause):
            # In the order of every decision: first the task, then its machine. After a crash in between the sweep does.
            services.store.workers.pledge([(wallet, task_id)])
        announce(services, before, replicate, request)


def _began(request: Report, now: float) -> float | None:
    """When the machine began to compute, by its report of the end: Unix seconds. None in other reports. It replaces the
    report of the start where that was lost.
    """
    if request.seconds is None or request.step not in {Step.COMPUTED, Step.FAILED}:
        return None
    return max(0.0, now - request.seconds)


def _keep_output(services: Access, task: TaskRecord, replicate: Replicate, request: Report, now: float) -> None:
    """Keep what the app printed, if the report tells; the first of a task and wallet stays."""
    if request.step in {Step.COMPUTED, Step.FAILED} and (request.stdout is not None or request.stderr is not None):
        output = kept_output(task, replicate, request.step, request.stdout or "", request.stderr or "")
        services.store.outputs.put(output, now)


def own_replicate(services: Access, task_id: TaskId, wallet: Wallet) -> tuple[TaskRecord, Replicate]:
    """A task and this wallet's replicate of it. The replicate is added if the wallet's vote is on chain but not stored
    here.

    Raises NotFound for an unknown task, Refused if the task was not given to this wallet.
    """
    task = services.store.tasks.get_task(task_id)
    if task is None:
        raise NotFound(what=f"task {task_id}")
    replicate = task.replicate(wallet)
    if replicate is None and on_chain(services, task).contribution(wallet) is not None:
        # Our signature is behind its vote, so it was asked: a restored database may not know that.
        replicate = replicate_of_voter(task, wallet, services.clock())
        services.store.tasks.add_replicate(task.task_id, replicate)
    if replicate is None:
        raise Refused(why="that task was not given to this wallet")
    return task, replicate


def on_chain(services: Access, task: TaskRecord) -> ChainView:
    """A task's state on chain, folded from its logs."""
    logs = services.store.chain.logs.of_tasks([task.task_id]).get(task.task_id, [])
    return fold(task.task_id, logs, category_seconds=task.category_seconds)


def announce(services: Access, task: TaskRecord, replicate: Replicate, accepted: Report) -> None:
    """Publish `advance` if the step can change a decision, or `assign` if it has freed a slot and does nothing else;
    show the step in Flower, count it.

    Called once the report is stored; the report is accepted even if this fails.
    """
    if frees_slot(replicate, accepted.step, accepted.cause) and nothing_else_to_decide(task):
        services.notifier.send_assign(freed=True)
    elif can_change_decision(accepted.step, replicate.mode, early_steps=early_steps(services.settings)):
        services.notifier.send_advance(task.task_id)
    services.relay.report(replicate, task.task_id, accepted)
    REPORTS.labels(step=str(accepted.step)).inc()
