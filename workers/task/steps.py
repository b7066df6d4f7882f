"""The steps of a task after its result is computed: vote, reveal, upload, abort. May be called in any order.

A step that finds the journal elsewhere than it expects does nothing: the message was late, repeated, or early.
A step with a transaction stores it in the lane's file and wakes the process `upkeep`, which runs the lane. It reports
nothing: the pool sees what became of it on chain.
"""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import structlog
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    wait_exponential_jitter,
)

from chain.lane.model.intent import Intent, IntentState
from chain.lane.run import RunReport
from chain.rpc.announced import AnnouncedHead
from config.early_steps import early_steps
from protocol.errors import BadInput, EngineUnavailable, PoolUnavailable
from protocol.results.error_result import ABORTED, MACHINE_FAILED, worded
from protocol.types import TaskId, Wallet
from protocol.wire import Report, Step
from workers.context import WorkerContext
from workers.sandbox.spec import container_name
from workers.task import own_copy, votes
from workers.task.replicate import WITH_RESULT, Replicate, ReplicateStage

log = structlog.get_logger(__name__)

#: Seconds an upload is tried before its message is given up; the process `upkeep` or the scheduler asks again.
UPLOAD_TIMEOUT = 60.0
#: An upload is tried so often at least, however long each try took: each goes on where the last one was cut.
UPLOAD_TRIES = 4
#: A run that asks to be repeated at once is repeated this often; then the next head does.
RUNS_IN_A_ROW = 5
#: Reveals of one vote that may be given up: each may have cost gas, and the stake is lost without one.
MOST_REVEALS = 5
#: Errors of a file that is gone or damaged; any other may be temporary.
_LOST = frozenset({errno.ENOENT, errno.EIO, errno.EBADMSG, errno.EUCLEAN})
#: Length of a cause in a report.
CAUSE_CHARACTERS = 200


def contribute(context: WorkerContext, task_id: TaskId) -> bool:
    """Submit the vote to the lane; True if the vote is in the lane."""
    replicate = _with_result(context, task_id)
    if replicate is None or replicate.solo:
        return False
    if replicate.stage is ReplicateStage.COMPUTED:
        vote = votes.contribute(replicate, context.chain_id, context.now(), context.initializer)
        if not context.layout.task(task_id).zip.is_file() and not context.lane.intents([vote.key]):
            # A vote in the lane is never given up; one that is not yet there would be for what nobody can have.
            _give_up(context, replicate, "the result is not on this machine's disk any more")
            return False
        _commit(context, replicate, vote)
    return True


def contribute_and_finalize(context: WorkerContext, task_id: TaskId) -> bool:
    """Submit the result with its link to the lane; True if they are in the lane."""
    replicate = _with_result(context, task_id)
    if replicate is None or not replicate.solo or not replicate.uploaded:
        return False
    if replicate.stage is ReplicateStage.COMPUTED:
        _commit(
            context,
            replicate,
            votes.contribute_and_finalize(replicate, context.chain_id, context.now(), context.initializer),
        )
    return True


def _commit(context: WorkerContext, replicate: Replicate, intent: Intent) -> None:
    """Hand a vote to the lane and note that in the journal."""
    # First the lane, then the journal: a crash between the two repeats the first, which changes nothing. Woken last,
    # so that the lane hardly ever sends what the journal does not know of (`votes_first` sees to the rest).
    context.lane.submit([intent])
    context.journal.mark_committed(replicate.task_id, context.now())
    context.lane_wakeup.notify()


def reveal(context: WorkerContext, task_id: TaskId) -> bool:
    """Submit the reveal to the lane; True if the reveal is in the lane. Also for a vote that this machine has not seen
    mined: the lane asks the chain.
    """
    replicate = _with_result(context, task_id)
    if replicate is None or replicate.solo:
        return False
    worth, failed = context.ledger.worth(replicate.assignment.deal_id), failed_reveals(context, [replicate])[task_id]
    context.lane.submit([votes.reveal(replicate, context.chain_id, context.now(), worth, occasion=failed)])
    context.journal.mark_revealed(task_id, context.now())
    context.lane_wakeup.notify()
    return True


def failed_reveals(context: WorkerContext, replicates: Sequence[Replicate]) -> dict[TaskId, int]:
    """How many reveals of each vote the lane has given up, as by the word of a node on a branch that is gone; at most
    MOST_REVEALS, the last of which is not repeated.
    """
    failed = {replicate.task_id: 0 for replicate in replicates}
    # Each is submitted after the one before was given up: one query for all votes, and one more where some were.
    asked = list(replicates)
    for occasion in range(MOST_REVEALS):
        tries = {votes.reveal(item, context.chain_id, 0.0, occasion=occasion).key: item for item in asked}
        given_up = [intent for intent in context.lane.intents(list(tries)) if intent.state is IntentState.FAILED]
        asked = [tries[intent.key] for intent in given_up]
        for replicate in asked:
            failed[replicate.task_id] += 1
        if not asked:
            break
    return failed


def run_lane(context: WorkerContext, *, same_head: bool = False, announced: AnnouncedHead | None = None) -> RunReport:
    """Run the lane, again while it asks for it; a vote that the lane gave up ends its task as FAILED.

    `same_head`: no head came since the last run. `announced`: the head that came.
    """
    for number in range(1 + RUNS_IN_A_ROW):
        report = context.lane.run() if number else context.lane.run(same_head=same_head, announced=announced)
        _end_given_up(context, report.ended)
        _report_reveals(context, report)
        if not report.wake_again:
            break
    return report


def _report_reveals(context: WorkerContext, report: RunReport) -> None:
    """Where steps may share a block, report each reveal once it is sent: finalize may go right behind the last."""
    if not early_steps(context.machine.settings):
        return
    for intent in report.sent:
        if intent.method == votes.REVEAL and not intent.generation:
            asked = Report(step=Step.REVEALED, seconds=max(0.0, context.now() - intent.created_at))
            context.reports.send(TaskId(intent.subject), asked)


def note_given_up(context: WorkerContext, replicates: Sequence[Replicate]) -> None:
    """End those of the tasks whose vote the lane has given up unheard: in a run of `sluice worker deposit`, or in one
    whose process was killed right after it.
    """
    committed = [item for item in replicates if item.stage is ReplicateStage.COMMITTED]
    if committed:
        _end_given_up(context, context.lane.intents([votes.key(item, context.chain_id) for item in committed]))


def _end_given_up(context: WorkerContext, ended: Sequence[Intent]) -> None:
    """End tasks whose vote is among these intents and was given up, and report them."""
    for intent in ended:
        if intent.state is not IntentState.FAILED or intent.method not in (votes.CONTRIBUTE, votes.SOLO):
            continue
        task_id = TaskId(intent.subject)
        if context.journal.mark_failed(task_id, intent.reason, context.now()):
            log.warning("The vote was given up.", action="vote_given_up", task=task_id, why=intent.reason)
            context.reports.send(task_id, Report(step=Step.FAILED, cause=intent.reason[:CAUSE_CHARACTERS] or None))


def upload(context: WorkerContext, task_id: TaskId) -> bool:
    """Store the result at the pool, over its restarts, or else where `own_copy` says; whether it is stored. Raises
    PoolUnavailable in the end.

    One that can never be stored ends a task without a vote. A vote is still revealed: that needs only its
    digest, and saves the stake; the pool asks another machine that voted alike for the result.
    """
    replicate = _with_result(context, task_id)
    if replicate is None:
        return False
    path = context.layout.task(task_id).zip
    last = own_copy.is_due(context, replicate)
    lasting = stop_all(stop_after_delay(UPLOAD_TIMEOUT), stop_after_attempt(UPLOAD_TRIES))
    retrying = Retrying(
        stop=stop_after_attempt(1) if last else lasting,
        wait=wait_exponential_jitter(multiplier=0.2, max=5.0),
        retry=retry_if_exception_type(PoolUnavailable),
        reraise=True,
    )
    try:
        stored = retrying(context.pool.put_result, task_id, path, replicate.attestation)
    except BadInput as error:
        log.warning("The pool refuses the result.", action="upload_refused", task=task_id, why=str(error))
        if error.fields.get("final") or not _is_whole(path):
            _give_up_alone(context, replicate, f"the pool refuses the result: {error}")
        return False
    except OSError as error:
        if error.errno not in _LOST:
            raise
        log.warning("The result cannot be read.", action="upload_unreadable", task=task_id, why=str(error))
        _give_up_alone(context, replicate, f"the result cannot be read: {error.strerror}")
        return False
    except PoolUnavailable:
        link = own_copy.keep(context, replicate) if last else None
        if link is None:
            raise
        context.journal.mark_uploaded(task_id, link, context.now())
        return True
    if stored.digest != replicate.digest:
        log.error("The pool read another result.", action="upload_differs", task=task_id, digest=stored.digest)
        _give_up_alone(context, replicate, f"the pool has another result, of digest {stored.digest}")
        return False
    context.journal.mark_uploaded(task_id, stored.link, context.now())
    log.info("Result stored.", action="uploaded", task=task_id, location=stored.link.location)
    return True


def _is_whole(path: Path) -> bool:
    """Whether every file in a zip can be read and has its checksum."""
    try:
        with zipfile.ZipFile(path) as packed:
            return packed.testzip() is None
    except OSError as error:
        return error.errno not in _LOST
    except (ValueError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error):
        return False


def _give_up_alone(context: WorkerContext, replicate: Replicate, why: str) -> None:
    """End a task of trust 1 whose result can never be stored: nothing of it is on chain. One with a vote goes on."""
    if replicate.solo and replicate.stage is ReplicateStage.COMPUTED and not replicate.uploaded:
        _give_up(context, replicate, why)


def _give_up(context: WorkerContext, replicate: Replicate, why: str) -> None:
    """End a task that has no vote and will have none, since its result is lost, and report that."""
    cause = worded(MACHINE_FAILED, why)
    if context.journal.mark_failed(replicate.task_id, cause, context.now()):
        log.error("The task is given up.", action="result_lost", task=replicate.task_id, why=why)
        context.reports.send(replicate.task_id, Report(step=Step.FAILED, cause=cause))


def abort(context: WorkerContext, task_id: TaskId) -> None:
    """Stop working on a task that has not been voted for yet."""
    if not context.journal.mark_aborted(task_id, context.now()):
        return
    log.info("Aborted.", action="task_aborted", task=task_id)
    replicate = context.journal.find(task_id)
    if replicate is None:
        return
    wallet = Wallet(replicate.assignment.wallet)
    try:
        # The process that waits for the container returns, reads ABORTED in the journal, and removes the container.
        context.engine.kill(container_name(context.machine.settings.worker_name, wallet, task_id))
    except EngineUnavailable as error:
        log.warning(
            "Docker does not answer; the process upkeep removes the container later.",
            action="abort_incomplete",
            task=task_id,
            why=str(error),
        )


def hand_back(context: WorkerContext, task_id: TaskId, why: str) -> None:
    """Stop working on a task that has not been voted for, and report that, so that the pool assigns another machine."""
    abort(context, task_id)
    replicate = context.journal.find(task_id)
    if replicate is not None and replicate.stage is ReplicateStage.ABORTED:
        context.reports.send(task_id, Report(step=Step.FAILED, cause=worded(ABORTED, why)))


def _with_result(context: WorkerContext, task_id: TaskId) -> Replicate | None:
    """The task's replicate if it has a result; None else, which is logged."""
    replicate = context.journal.find(task_id)
    if replicate is None or replicate.stage not in WITH_RESULT:
        stage = None if replicate is None else replicate.stage
        log.info("Nothing to do for this task.", action="step_idle", task=task_id, stage=stage)
        return None
    return replicate
