"""A cause is shown to anybody who asks the pool for a task: no word of the app's or of its data stands in it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.enclave.reports import ExitCause
from protocol.enclave.session import PRE_COMPUTE
from protocol.errors import StorageUnavailable, TaskDeclined, TaskFailure
from protocol.results.error_result import Failure
from tests.unit.workers.assignments import task_id
from workers.data.layout import discard
from workers.enclave import surrounding
from workers.sandbox.engine.container_state import ContainerExit
from workers.task.outcome.failed_task import cause_of

SECRET = "her name is alice"


@pytest.mark.parametrize("code", [132, 137, 143])
def test_what_an_app_printed_is_no_part_of_why_it_is_declined(code: int) -> None:
    failure = TaskFailure(task=task_id(1), status=Failure.APP.status, cause=Failure.APP, why="no result")
    ended = ContainerExit(code, False, False, stdout=SECRET.encode(), stderr=SECRET.encode())
    with pytest.raises(TaskDeclined) as caught:
        cause_of(task_id(1), failure, ended)
    assert SECRET not in str(caught.value)
    assert f"exit code {code}" in str(caught.value)


@pytest.mark.parametrize("cause", ["PRE_COMPUTE_FAILED_UNKNOWN_ISSUE", "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"])
def test_what_a_program_says_that_decrypts_is_for_the_log_alone(cause: str) -> None:
    ended = ContainerExit(1, False, False)
    door: Any = SimpleNamespace(exit_causes={PRE_COMPUTE: ExitCause(cause=cause, message=SECRET)})
    work: Any = SimpleNamespace(task_id=task_id(1), assignment=SimpleNamespace(category_seconds=30))
    service: Any = SimpleNamespace(name=PRE_COMPUTE)
    assert SECRET not in str(surrounding._failure(service, work, door, ended))


def test_a_file_that_cannot_be_deleted_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / SECRET).mkdir()
    said = f"rm: cannot remove '{tmp_path}/out/{SECRET}': Operation not permitted\n".encode()
    monkeypatch.setattr("workers.data.layout._delete_shallow", lambda *_: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr=said))
    with pytest.raises(StorageUnavailable, match="Operation not permitted") as caught:
        discard(tmp_path / "out")
    assert SECRET not in str(caught.value)
