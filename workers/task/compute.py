"""One replicate, from assignment to a result that is ready to be voted for.

    take ─► check ─► download ─► run ─► pack ─► journal COMPUTED ─► report, remove the container (enclave: `app_end`)
                         │        │       │
                         └────────┴───────┴── what every honest machine would meet becomes an error result
                                              all else is declined: FAILED, nothing contributed (`verdict`)

May be called any number of times for a task, by any process, after any crash: the lock makes one of them work, the
journal says where it stopped, the container is found by its name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial

import structlog

from config.metrics import CONTAINERS
from protocol.errors import (
    BadMessage,
    BadSetting,
    CannotStart,
    ContainerRefused,
    EngineUnavailable,
    NoSuchContainer,
    NoSuchImage,
    RefusedHere,
    TaskDeclined,
    TaskFailure,
)
from protocol.poco.tags import needs_gpu
from protocol.results.error_result import ABORTED, MACHINE_FAILED, Failure, worded
from protocol.results.params import DealParams, read_params
from protocol.types import ZERO_ADDRESS, Hash32, TaskId
from protocol.wire import Assignment, Report, Step
from workers.context import WorkerContext
from workers.data import outputs
from workers.data.layout import TaskFolders, discard
from workers.data.outputs import PackedResult
from workers.enclave.enter import enter
from workers.enclave.port import Enclave, Work
from workers.pool.reports import tail
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.engine_disk import room_for_copies
from workers.sandbox.gpu import free_gpu
from workers.sandbox.images.image import AppImage, require_name
from workers.sandbox.network import app_names, listed_apps
from workers.sandbox.profile import NetworkAccess
from workers.sandbox.run_app import AppRun
from workers.sandbox.spec import container_spec
from workers.task import admission, disk_limits, given_again, signature
from workers.task.deadline import TaskDeadline
from workers.task.outcome import app_end, failed_task, own_end
from workers.task.replicate import COMPUTING, WITH_RESULT, Replicate, ReplicateStage

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Attempt:
    """What is known of one attempt so far; the end of a container is worth knowing even if packing then fails."""

    #: Unix seconds.
    began: float = 0.0
    ended: ContainerExit | None = None
    #: Id of its container.
    container: str | None = None

    def uses(self, container: str) -> None:
        """Note the container that this attempt continues, so that this one and no later one is removed."""
        self.container = container

    @property
    def exit_code(self) -> int | None:
        """The app's exit code, if it ended."""
        return self.ended.exit_code if self.ended else None

    @property
    def stdout(self) -> bytes:
        """What the app printed."""
        return self.ended.stdout if self.ended else b""

    @property
    def stderr(self) -> bytes:
        """What the app printed as errors."""
        return self.ended.stderr if self.ended else b""


def compute(context: WorkerContext, assignment: Assignment, *, redelivered: bool = False) -> bool:
    """Do the replicate unless it is done; whether a result is ready. False also if another process works on it.

    `redelivered`: RabbitMQ had delivered the message before, so it says nothing new.
    """
    task_id = TaskId(assignment.task_id)
    with ExitStack() as locked:
        try:
            replicate = _admitted(context, assignment, locked, redelivered=redelivered)
        except (OSError, sqlite3.Error, BadSetting) as error:
            # A full or broken disk: neither a lock nor a row of the journal can be had.
            log.exception("The machine's folder does not take the task.", action="journal_broken", task=task_id)
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            cause = worded(MACHINE_FAILED, f"the journal does not take the task: {said}")
            context.reports.send(task_id, Report(step=Step.FAILED, cause=cause))
            return False
        if replicate is None:
            return False
        if replicate.stage in COMPUTING:
            _compute(context, replicate)
        else:
            _report_again(context, replicate)
        now = context.journal.find(task_id)
        return now is not None and now.stage in WITH_RESULT


def _admitted(
    context: WorkerContext, assignment: Assignment, locked: ExitStack, *, redelivered: bool
) -> Replicate | None:
    """The task's row in the journal, once `locked` holds its lock; None if nothing is to be done. Raises OSError,
    sqlite3.Error, BadSetting.
    """
    task_id = TaskId(assignment.task_id)
    if not locked.enter_context(context.layout.lock(task_id, wait=False)):
        log.info("Another process works on this task.", action="compute_busy", task=task_id)
        return None
    if not signature.admits(context, assignment):
        return None
    if not given_again.cleared(context, assignment, redelivered=redelivered):
        return None
    return context.journal.add(assignment, context.now())


def _report_again(context: WorkerContext, replicate: Replicate) -> None:
    """Report the task's state again: a scheduler that assigns it again has not received the report, or has lost it."""
    step = Step.FAILED if replicate.stage is ReplicateStage.FAILED else Step.COMPUTED
    context.reports.send(replicate.task_id, Report(step=step, cause=replicate.cause, exit_code=replicate.exit_code))


def _compute(context: WorkerContext, replicate: Replicate) -> None:
    """Run the app of a task, store its result or failure in the journal and report it."""
    task_id = replicate.task_id
    context.reports.send(task_id, Report(step=Step.STARTED))
    attempt = _Attempt(context.now())
    try:
        with _boundary(task_id):
            admission.require(context, replicate)
            result, failure = _result(context, replicate, attempt)
            code, cause = attempt.exit_code, failure.value if failure else None
            stored = context.journal.mark_computed(
                task_id,
                context.now(),
                digest=result.digest,
                callback_data=result.callback_data,
                cause=cause,
                exit_code=code,
                enclave_signature=result.enclave_signature,
            )
    except TaskDeclined as declined:
        _fail(context, task_id, declined, attempt)
        return
    if stored:
        log.info("Computed.", action="computed", task=task_id, digest=result.digest, cause=cause, exit_code=code)
        context.reports.send(
            task_id,
            Report(
                step=Step.COMPUTED,
                cause=cause,
                exit_code=code,
                stdout=tail(attempt.stdout),
                stderr=tail(attempt.stderr),
                seconds=max(0.0, context.now() - attempt.began),
            ),
        )
    _tidy(context, task_id, attempt)


@contextmanager
def _boundary(task_id: TaskId) -> Iterator[None]:
    """Turn whatever else a machine's disk, engine or libraries raise into TaskDeclined: without a report the pool would
    wait for the task to its deadline, on every machine that it tries. Whatever it is: what a stranger's server or image
    says may meet a mistake of ours.
    """
    try:
        yield
    except TaskDeclined:
        raise
    except Exception as error:
        log.exception("Could not work on the task.", action="compute_broken", task=task_id)
        # Of a file not its name, which an app may have chosen: anybody may read a cause.
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _declined(task_id, MACHINE_FAILED, f"{type(error).__name__}: {said}") from error


def _result(context: WorkerContext, replicate: Replicate, attempt: _Attempt) -> tuple[PackedResult, Failure | None]:
    """The result, or the error result and its cause. Raises TaskDeclined."""
    disk_limits.require_free_space(context, replicate.task_id)
    folders = context.layout.task(replicate.task_id)
    folders.make()
    try:
        return _app_result(context, replicate, folders, attempt), None
    except TaskDeclined:
        raise
    except TaskFailure as error:
        if _aborted(context, replicate.task_id):
            # Its container was killed by us: that says nothing of the app.
            raise _declined(replicate.task_id, ABORTED, "it was aborted") from error
        failure, why = failed_task.cause_of(replicate.task_id, error, attempt.ended)
        _require_own_failure(context, replicate, attempt, why)
        log.warning("The task failed.", action="task_failed", task=replicate.task_id, cause=failure, why=why)
        if replicate.assignment.callback != ZERO_ADDRESS or replicate.in_enclave:
            # A callback contract expects the app's data, and an enclave answers for what its app has left; there is
            # none, and no text can stand for it.
            raise _declined(replicate.task_id, failure, f"{why} (it is given no error in place of a result)") from error
        result_limits = context.machine.result_limits
        return failed_task.error_result(replicate.task_id, folders, failure, why, attempt.ended, result_limits), failure


def _app_result(context: WorkerContext, replicate: Replicate, folders: TaskFolders, attempt: _Attempt) -> PackedResult:
    """Download, run, pack. As with iExec, a computed.json counts even if the app failed after writing it, unless this
    machine's own sandbox may have been why.
    """
    assignment = replicate.assignment
    params = _params(replicate)
    require_name(assignment)
    deadline = _task_deadline(context, replicate, assignment.category_seconds)
    # What is around an app that has ended before has all the time that is left.
    needed = app_end.settle(context.engine, folders, replicate, partial(own_end.memory_watch, context))
    enclave = enter(context, Work(assignment, params, context.layout, _task_deadline(context, replicate, needed)))
    enclave.pre_compute(context.machine.downloads)
    _run(context, replicate, params, folders, attempt, deadline, enclave)
    if attempt.ended is not None and not attempt.ended.clean:
        _require_own_failure(context, replicate, attempt, failed_task.how(attempt.ended))
    if attempt.ended is not None and attempt.ended.clean:
        for name, content in ((failed_task.STDOUT_FILE, attempt.stdout), (failed_task.STDERR_FILE, attempt.stderr)):
            if content:
                outputs.write_into(folders.outputs, name, content)
    return enclave.post_compute(context.machine.result_limits)


def _require_own_failure(context: WorkerContext, replicate: Replicate, attempt: _Attempt, why: str) -> None:
    """Raise TaskDeclined for an app that failed in a container, if what this machine gives apps may be the cause."""
    if attempt.container is not None:
        gpu = needs_gpu(Hash32(replicate.assignment.tag))
        failed_task.require_promised(replicate.task_id, context.machine.sandbox, context.engine.info(), why, gpu=gpu)
        disk_limits.require_promised_disk(context, replicate.task_id, attempt.container, attempt.ended)


def _task_deadline(context: WorkerContext, replicate: Replicate, work: float) -> TaskDeadline:
    """The time that a task has left. `work`: seconds that are kept for what follows."""
    aborted, given = partial(_aborted, context, replicate.task_id), replicate.assignment
    until, category = given.contribution_deadline, given.category_seconds
    return TaskDeadline(replicate.task_id, until, context.now, aborted, work=work, category=category)


def _aborted(context: WorkerContext, task_id: TaskId) -> bool:
    """Whether the task was aborted meanwhile."""
    known = context.journal.find(task_id)
    return known is None or known.stage not in COMPUTING


def _params(replicate: Replicate) -> DealParams:
    """The deal's parameters. Raises TaskFailure for what cannot be read or served."""
    assignment = replicate.assignment
    try:
        params = read_params(assignment.params)
    except BadMessage as error:
        raise _failed(assignment, Failure.APP, str(error)) from error
    unserved = params.unserved(enclave=replicate.in_enclave)
    if unserved is not None:
        raise _failed(assignment, Failure.APP, unserved)
    return params


def _run(
    context: WorkerContext,
    replicate: Replicate,
    params: DealParams,
    folders: TaskFolders,
    attempt: _Attempt,
    deadline: TaskDeadline,
    enclave: Enclave,
) -> None:
    """Run the app and read what it printed. Raises TaskFailure or TaskDeclined."""
    task_id, assignment, machine = replicate.task_id, replicate.assignment, context.machine
    try:
        spec = container_spec(
            assignment,
            params,
            worker_name=machine.settings.worker_name,
            workerpool=machine.pool.workerpool,
            inputs=str(folders.inputs),
            outputs=str(folders.outputs),
            limits=machine.limits,
            sandbox=machine.sandbox,
        )
        if not context.journal.mark_running(task_id, None, context.now()):
            raise _declined(task_id, ABORTED, "it was aborted")
        app_image = AppImage(context.engine, context.layout, machine.images, assignment, deadline)
        run = AppRun(
            engine=context.engine,
            spec=enclave.app(spec),
            known_image=app_image.known,
            fetch_image=app_image.fetch,
            pinned=partial(app_names.with_names, context.layout),
            gpus=partial(_gpus, context, assignment),
            room=partial(room_for_copies, context.engine, context.layout, task_id, deadline.wait),
            clear=folders.clear_outputs,
            created=lambda container: _created(context, task_id, attempt, container),
            found=attempt.uses,
            watch=lambda container: disk_limits.watch(context, task_id, container),
            memory=partial(own_end.memory_watch, context),
            wait=deadline.wait,
            wait_before_retry=deadline.wait_before_retry,
        )
        resumed = replicate.stage is ReplicateStage.RUNNING
        attempt.ended = app_end.run(run, folders, sealed=replicate.in_enclave, resumed=resumed)
    except CannotStart as error:
        raise _failed(assignment, Failure.APP, str(error)) from error
    except (ContainerRefused, NoSuchImage, NoSuchContainer, EngineUnavailable, RefusedHere) as error:
        raise _declined(task_id, failed_task.cause_of_refusal(error), str(error)) from error
    CONTAINERS.labels(own_end.outcome(attempt.ended)).inc()
    own_end.require_own_end(machine, task_id, attempt.ended)


def _gpus(context: WorkerContext, assignment: Assignment) -> AbstractContextManager[tuple[str, ...]]:
    """The GPU that the app gets, held for the block; none if its tag demands none."""
    machine = context.machine
    if not needs_gpu(Hash32(assignment.tag)):
        return nullcontext(())
    return free_gpu(context.engine, context.layout, machine.wallet, machine.gpus)


def _created(context: WorkerContext, task_id: TaskId, attempt: _Attempt, container: str) -> None:
    """Called when the container exists but has not started: the last moment at which an abort costs nothing."""
    attempt.uses(container)
    if not context.journal.mark_running(task_id, container, context.now()):
        raise _declined(task_id, ABORTED, "it was aborted")
    if context.machine.sandbox.network is NetworkAccess.LISTED:
        listed_apps.confine(context.engine, context.layout, context.machine.wallet)


def _fail(context: WorkerContext, task_id: TaskId, declined: TaskDeclined, attempt: _Attempt) -> None:
    """Store and report that this machine declines the task."""
    cause = worded(declined.cause, str(declined.fields["why"]))
    try:
        ended = context.journal.mark_failed(task_id, cause, context.now(), exit_code=attempt.exit_code)
    except sqlite3.Error:
        # The pool is still told; the process upkeep tries again, ever more rarely, until the journal can be written.
        log.exception("The journal does not take the task's end.", action="journal_broken", task=task_id)
        ended = True
    if ended:
        log.warning("Declined.", action="task_declined", task=task_id, cause=declined.cause, why=str(declined))
        context.reports.send(
            task_id,
            Report(
                step=Step.FAILED,
                cause=cause,
                exit_code=attempt.exit_code,
                stdout=tail(attempt.stdout),
                stderr=tail(attempt.stderr),
                seconds=max(0.0, context.now() - attempt.began),
            ),
        )
    _tidy(context, task_id, attempt)


def _tidy(context: WorkerContext, task_id: TaskId, attempt: _Attempt) -> None:
    """Remove the container and all files but the result, in the background: a task may wait for hours for the votes of
    others. If that fails, the machine's next sweep does it, or the task's end.
    """
    aside, container = None, attempt.container
    with suppress(OSError):
        aside = context.layout.task(task_id).move_away()
    if container is not None:
        context.reports.later(lambda: remove_container(context, container))
    if aside is not None:
        context.reports.later(lambda: discard(aside))


def remove_container(context: WorkerContext, container: str) -> None:
    """Remove a container; one that the engine cannot remove is left to the next sweep, and logged once."""
    try:
        context.engine.remove(container)
    except EngineUnavailable as error:
        if context.engine.note_stuck(container):
            log.warning("Container not removed yet.", action="container_left", container=container, why=str(error))


def _failed(assignment: Assignment, failure: Failure, why: str) -> TaskFailure:
    """The failure of an app."""
    return TaskFailure(task=assignment.task_id, status=failure.status, cause=failure, why=why)


def _declined(task_id: TaskId, cause: str, why: str) -> TaskDeclined:
    """The error by which this machine declines a task."""
    return TaskDeclined(task=task_id, cause=str(cause), why=why)
