"""Whether an app ended by itself, or was killed: for its memory, or from outside."""

from __future__ import annotations

from protocol.errors import TaskDeclined, TaskFailure
from protocol.results.error_result import MACHINE_MEMORY, UNCLEAR_END, Failure
from protocol.types import TaskId
from workers.context import Machine, WorkerContext
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.memory import MemoryWatch
from workers.task.outcome.verdict import KILLED


def memory_watch(context: WorkerContext, container: str) -> MemoryWatch:
    """The watch that finds which memory limit an app has reached."""
    return MemoryWatch(container, context.machine.engine_resources.cgroups, context.engine.inspect)


def require_own_end(machine: Machine, task_id: TaskId, ended: ContainerExit) -> None:
    """Raise if the app was killed, since its output then does not count: TaskFailure if it reached its own memory limit
    and had what the pool promises, TaskDeclined if it had less, or was killed from outside.
    """
    if ended.out_of_memory:
        if not ended.own_limit:
            why = "the app was killed for lack of memory, and nothing shows that it had reached its own limit"
            raise TaskDeclined(task=task_id, cause=MACHINE_MEMORY, why=why)
        needed = f"the app needed more than the {machine.memory_per_slot} bytes of memory"
        if machine.keeps_memory_promise:
            failure = Failure.OUT_OF_MEMORY
            why = f"{needed} that the pool promises"
            raise TaskFailure(task=task_id, status=failure.status, cause=failure, why=why)
        why = f"{needed} it had here; the pool promises {machine.pool.memory_per_slot}"
        raise TaskDeclined(task=task_id, cause=MACHINE_MEMORY, why=why)
    if ended.exit_code == KILLED and not ended.timed_out:
        why = "the app was killed (SIGKILL), neither by us nor for its memory"
        raise TaskDeclined(task=task_id, cause=UNCLEAR_END, why=why)


def outcome(ended: ContainerExit) -> str:
    """How an app has ended, as a label of metrics."""
    if ended.timed_out:
        return "timeout"
    if ended.out_of_memory:
        return "out_of_memory"
    return "ok" if ended.exit_code == 0 else "failed"
