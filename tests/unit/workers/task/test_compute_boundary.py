"""Nothing leaves a computation without a report, whatever breaks below it."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.errors import EngineUnavailable, StorageUnavailable
from protocol.results.error_result import MACHINE_FAILED, cause_code
from protocol.types import Hash32
from protocol.wire import Report, Step
from tests.unit.workers.assignments import CHAIN_ID, SCHEDULER_KEY, WORKER_KEY, WORKERPOOL, assignment, task_id
from workers.data.layout import Layout
from workers.task.compute import compute
from workers.task.journal import Journal
from workers.task.replicate import ReplicateStage

DIGEST = Hash32("0x" + "ab" * 32)
BROKEN = [
    OSError(28, "No space left on device"),
    UnicodeError("label empty or too long"),
    subprocess.CalledProcessError(1, ["rm"]),
    StorageUnavailable(what="a folder", why="not ours"),
    EngineUnavailable(what="docker", why="gone"),
    # Nobody knows what a stranger's words meet in a library.
    OverflowError("Python int too large to convert to C int"),
    RecursionError("maximum recursion depth exceeded"),
]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Any]:
    layout = Layout(tmp_path / "worker")
    layout.make()
    journal = Journal(layout.journal)
    sent: list[Report] = []
    machine = SimpleNamespace(
        wallet=WORKER_KEY.wallet,
        pool=SimpleNamespace(scheduler=SCHEDULER_KEY.wallet, chain_id=CHAIN_ID, workerpool=WORKERPOOL),
        downloads=None,
        settings=SimpleNamespace(worker_name="test"),
    )
    yield SimpleNamespace(
        layout=layout,
        journal=journal,
        now=time.time,
        machine=machine,
        sent=sent,
        ledger=SimpleNamespace(why_not=lambda _: None),
        engine=SimpleNamespace(data_folder=None, info=dict),
        reports=SimpleNamespace(send=lambda _, report: sent.append(report), later=lambda act: act()),
    )
    journal.close()


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_what_breaks_on_this_machine_is_declined_and_reported(
    context: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("workers.data.inputs.fetch", broken)
    assert not compute(context, assignment(1))
    found = context.journal.find(task_id(1))
    assert found.stage is ReplicateStage.FAILED
    assert [report.step for report in context.sent] == [Step.STARTED, Step.FAILED]
    assert cause_code(context.sent[-1].cause) == MACHINE_FAILED
    assert (getattr(error, "strerror", None) or str(error)) in context.sent[-1].cause


def test_a_journal_that_takes_nothing_more_ends_a_task_with_a_report(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, or a file that is broken: the pool must not wait for the task to its deadline."""

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    # Also while it fetches, a task asks the journal whether it was aborted.
    monkeypatch.setattr("workers.data.inputs.fetch", full)
    monkeypatch.setattr(context.journal, "mark_failed", full)
    assert not compute(context, assignment(1))
    assert [report.step for report in context.sent] == [Step.STARTED, Step.FAILED]
    assert cause_code(context.sent[-1].cause) == MACHINE_FAILED


def test_a_task_that_the_journal_does_not_take_is_reported_as_declined(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(context.journal, "add", full)
    assert not compute(context, assignment(1))
    (report,) = context.sent
    assert (report.step, cause_code(report.cause)) == (Step.FAILED, MACHINE_FAILED)


def test_a_task_whose_journal_cannot_even_be_read_is_reported_as_declined(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(context.journal, "find", broken)
    assert not compute(context, assignment(1))
    (report,) = context.sent
    assert (report.step, cause_code(report.cause)) == (Step.FAILED, MACHINE_FAILED)


def test_a_task_for_which_the_disk_has_not_even_a_lock_is_reported_as_declined(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/home/worker/locks/0x1")

    monkeypatch.setattr("workers.data.layout.os.open", full)
    assert not compute(context, assignment(1))
    (report,) = context.sent
    assert (report.step, cause_code(report.cause)) == (Step.FAILED, MACHINE_FAILED)
    assert "No space left on device" in report.cause
    assert "/home" not in report.cause


def test_no_file_of_the_apps_is_named_in_what_anybody_may_read(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/home/worker/tasks/0x1/out/diagnosis-of-alice.txt")

    monkeypatch.setattr("workers.data.inputs.fetch", denied)
    assert not compute(context, assignment(1))
    assert "Permission denied" in context.sent[-1].cause
    assert "alice" not in context.sent[-1].cause


def test_an_aborted_task_that_is_assigned_again_begins_anew(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, task = assignment(1), task_id(1)
    context.journal.add(wanted, 1.0)
    context.journal.mark_running(task, "old", 1.0)
    context.journal.mark_aborted(task, 2.0)
    folders = context.layout.task(task)
    folders.make()
    (folders.outputs / "half").write_text("written before the abort")
    removed: list[str] = []
    context.engine = SimpleNamespace(remove=removed.append, data_folder=None)
    fetched: list[bool] = []

    def fetch(*_: object) -> None:
        fetched.append((folders.outputs / "half").exists())
        raise OSError

    monkeypatch.setattr("workers.data.inputs.fetch", fetch)
    compute(context, wanted)
    assert fetched == [False]
    assert len(removed) == 1
    assert context.sent[0].step is Step.STARTED


def test_a_message_that_the_broker_delivers_again_after_the_abort_runs_nothing(context: Any) -> None:
    """RabbitMQ was killed before it heard that the message is done: the app must not run once more for nobody."""
    wanted, task = assignment(1), task_id(1)
    context.journal.add(wanted, 1.0)
    context.journal.mark_running(task, "old", 1.0)
    context.journal.mark_aborted(task, 2.0)
    assert not compute(context, wanted, redelivered=True)
    assert context.journal.find(task).stage is ReplicateStage.ABORTED
    assert context.sent == []


def test_a_message_that_the_broker_delivers_again_goes_on_with_a_task_that_was_not_aborted(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("workers.data.inputs.fetch", fetch)
    context.journal.add(assignment(1), 1.0)
    compute(context, assignment(1), redelivered=True)
    assert context.sent[0].step is Step.STARTED


def test_an_aborted_task_waits_while_docker_keeps_its_container(context: Any) -> None:
    wanted, task = assignment(1), task_id(1)
    context.journal.add(wanted, 1.0)
    context.journal.mark_aborted(task, 2.0)

    def remove(_: str) -> None:
        raise EngineUnavailable(what="docker", why="gone")

    context.engine = SimpleNamespace(remove=remove)
    assert not compute(context, wanted)
    assert context.journal.find(task).stage is ReplicateStage.ABORTED
    assert context.sent == []


@pytest.mark.parametrize(
    ("stage", "step"), [(ReplicateStage.FAILED, Step.FAILED), (ReplicateStage.COMPUTED, Step.COMPUTED)]
)
def test_a_finished_task_that_is_assigned_again_is_reported_with_its_end(
    context: Any, stage: ReplicateStage, step: Step
) -> None:
    task = task_id(1)
    context.journal.add(assignment(1), 1.0)
    context.journal.mark_running(task, None, 1.0)
    if stage is ReplicateStage.FAILED:
        context.journal.mark_failed(task, MACHINE_FAILED, 2.0)
    else:
        context.journal.mark_computed(task, 2.0, digest=DIGEST, callback_data=None, cause=None, exit_code=0)
    assert compute(context, assignment(1)) is (stage is ReplicateStage.COMPUTED)
    assert [report.step for report in context.sent] == [step]


CHANGES: list[dict[str, object]] = [
    {"image": "evil/app:1"},
    {"params": '{"iexec_args":"--mine"}'},
    {"contribution_deadline": 4_000_000_001},
    {"app": "0x" + "ab" * 20},
    {"signature": None},
    {"signature": "0x" + "00" * 65},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_an_assignment_that_was_changed_on_its_way_is_reported_and_nothing_of_it_is_fetched_run_or_kept(
    context: Any, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.data.inputs.fetch", lambda *_: pytest.fail("it was fetched"))
    assert not compute(context, assignment(1).model_copy(update=change))
    assert context.journal.find(task_id(1)) is None
    (report,) = context.sent
    assert report.step is Step.FAILED
    assert cause_code(report.cause) == "WORKERPOOL_AUTHORIZATION_NOT_FOUND"


def test_a_forged_message_does_not_change_a_task_that_is_under_way(context: Any) -> None:
    context.journal.add(assignment(1), 1.0)
    context.journal.mark_computed(task_id(1), 2.0, digest=DIGEST, callback_data=None, cause=None, exit_code=0)
    assert compute(context, assignment(1).model_copy(update={"image": "evil/app:1"}))
    assert context.journal.find(task_id(1)).assignment.image == "sluice/test-app:1"
    assert [report.step for report in context.sent] == [Step.COMPUTED]
