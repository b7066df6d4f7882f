"""What a failed task leaves behind: why, in words, and the error result that the requester gets."""

from __future__ import annotations

import json
from collections.abc import Mapping

from protocol.errors import ContainerRefused, SluiceError, TaskDeclined, TaskFailure
from protocol.results.computed import COMPUTED_FILE
from protocol.results.error_result import (
    ERROR_FILE,
    MACHINE_FAILED,
    UNCLEAR_END,
    Failure,
    error_computed,
    error_text,
)
from protocol.types import TaskId
from workers.data import outputs
from workers.data.layout import TaskFolders
from workers.data.outputs import PackedResult, ResultLimits
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.profile import Sandbox, shortfall
from workers.task.outcome import verdict
from workers.task.outcome.verdict import Verdict

STDOUT_FILE, STDERR_FILE = "stdout.txt", "stderr.txt"
#: Beside an error result: what went wrong, in words that are not part of its digest.
WHY_FILE = "why.txt"
#: Bytes of each log that go with an error result: its end, which says what went wrong.
ERROR_LOG_BYTES = 2**18


def cause_of(task_id: TaskId, error: TaskFailure, ended: ContainerExit | None) -> tuple[Failure, str]:
    """Why there is no result, as (code, words). If the app failed and left no computed.json, the way it ended is the
    cause.

    `ended`: how the container ended, None if it never ran. Raises TaskDeclined if the failure may be this machine's.
    """
    failure = Failure(error.cause)
    if ended is None or ended.clean or failure is Failure.OUT_OF_MEMORY:
        return failure, str(error.fields["why"])
    why = how(ended)
    if not ended.timed_out and verdict.of_exit(ended.exit_code, ended.stdout, ended.stderr) is not Verdict.APP:
        # Not what it printed: anybody may read a cause, and that only who proves to be the requester.
        why = f"{why}, which may tell of this machine"
        raise TaskDeclined(task=task_id, cause=UNCLEAR_END, why=why)
    if failure is not Failure.COMPUTED_FILE:
        return failure, str(error.fields["why"])
    if ended.timed_out:
        return Failure.APP_TIMEOUT, why
    return Failure.APP, why


def cause_of_refusal(error: SluiceError) -> str:
    """The cause of a decline where the engine did not run the app: what it refuses may be the image's own words."""
    image = isinstance(error, ContainerRefused) and not verdict.is_own_wish(str(error.fields["why"]))
    return UNCLEAR_END if image else MACHINE_FAILED


def how(ended: ContainerExit) -> str:
    """How an app that failed has ended, in words."""
    if ended.timed_out:
        return "the app ran until its category's time was over"
    if ended.out_of_memory:
        return "the app ran out of memory"
    return f"the app ended with exit code {ended.exit_code}"


def require_promised(
    task_id: TaskId, sandbox: Sandbox, engine: Mapping[str, object], why: str, *, gpu: bool = False
) -> None:
    """Raise TaskDeclined for an app that failed in a container (`why`), if this machine's sandbox or engine is stricter
    than what the pool promises, or if it had a GPU, of which the pool promises no kind: the app may have failed for
    that. `engine`: its `info`.
    """
    if gpu:
        raise TaskDeclined(task=task_id, cause=UNCLEAR_END, why=f"this machine's GPU may be why: {why}")
    stricter = shortfall(sandbox, engine)
    if stricter is not None:
        strictly = f"{stricter} is stricter than the pool promises, which may be why"
        raise TaskDeclined(task=task_id, cause=UNCLEAR_END, why=f"{strictly}: {why}")


def error_result(
    task_id: TaskId,
    folders: TaskFolders,
    failure: Failure,
    why: str,
    ended: ContainerExit | None,
    result_limits: ResultLimits,
) -> PackedResult:
    """The zip of an error result: `error.txt`, why, and the app's logs. The app's own output files are not in it."""
    folder = folders.clear_errors()
    outputs.write_into(folder, ERROR_FILE, error_text(failure))
    outputs.write_into(folder, COMPUTED_FILE, json.dumps(error_computed()).encode())
    outputs.write_into(folder, WHY_FILE, f"{why}\n".encode(errors="replace"))
    if ended is not None:
        for name, content in ((STDOUT_FILE, ended.stdout), (STDERR_FILE, ended.stderr)):
            if content:
                outputs.write_into(folder, name, content[-ERROR_LOG_BYTES:])
    return outputs.pack(task_id, folder, folders.zip, callback=False, result_limits=result_limits)
