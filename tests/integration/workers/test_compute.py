"""One replicate on a real engine: what apps see, what they leave, and when their container ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.errors import NoSuchContainer
from protocol.wire import Assignment, Dataset, Step
from tests.integration.workers.conftest import IMAGE, ReportingPool
from tests.integration.workers.scripts import built, done, result, serving, sha256, shell, zipped
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from tests.waiting import ample, wait_until
from workers.context import WorkerContext
from workers.data.layout import Layout
from workers.task import steps
from workers.task.compute import compute
from workers.task.replicate import ReplicateStage


def test_an_app_gets_its_environment_and_its_output_becomes_the_result(
    context: WorkerContext, pool: ReportingPool
) -> None:
    found = done(context, result("echo $IEXEC_TASK_ID $IEXEC_BOT_TASK_INDEX $IEXEC_BOT_SIZE > /iexec_out/r; echo hi"))
    assert found.stage is ReplicateStage.COMPUTED
    assert found.digest == sha256(f"{task_id(1)} 3 5\n".encode())
    assert zipped(context)["stdout.txt"] == b"hi\n"
    report = pool.wait_for(Step.COMPUTED)
    assert (report.exit_code, report.stdout, report.cause) == (0, "hi\n", None)


def test_the_container_is_gone_afterwards(context: WorkerContext) -> None:
    done(context, result("echo x > /iexec_out/r"))
    wait_until(lambda: not context.engine.containers_of(WORKER_KEY.wallet), 10, what="the container's removal")


def test_a_second_message_changes_nothing(context: WorkerContext) -> None:
    first = done(context, result("echo x > /iexec_out/r"))
    assert compute(context, first.assignment)
    assert context.journal.find(task_id(1)) == first


def test_two_messages_at_once_run_one_container(context: WorkerContext) -> None:
    with context.layout.lock(task_id(1), wait=True):
        assert not compute(context, assignment(1, **shell("true")))
    assert context.journal.find(task_id(1)) is None


def test_inputs_are_read_only_and_have_the_right_names(context: WorkerContext, tmp_path: Path) -> None:
    files = tmp_path / "www"
    files.mkdir()
    (files / "data").write_bytes(b"dataset")
    (files / "input").write_bytes(b"input file")
    with serving(files) as url:
        dataset = Dataset(address="0x" + "ab" * 20, url=f"{url}/data", checksum=sha256(b"dataset"))
        script = result(
            "cat $IEXEC_IN/$IEXEC_DATASET_FILENAME $IEXEC_IN/$IEXEC_INPUT_FILE_NAME_1 > /iexec_out/r;"
            " touch $IEXEC_IN/new || echo refused >> /iexec_out/r"
        )
        params = json.dumps({"iexec_args": f"sh -c '{script}'", "iexec_input_files": [f"{url}/input"]})
        compute(context, assignment(1, image=IMAGE, params=params, dataset=dataset))
    assert zipped(context)["r"] == b"datasetinput filerefused\n"


@pytest.mark.parametrize("name", ["Bob's machine", "", "  ", "ünïcode", "-", "a/b:c", "x" * 300])
def test_a_worker_may_be_called_anything(context: WorkerContext, name: str) -> None:
    named = context.machine.settings.model_copy(update={"worker_name": name})
    object.__setattr__(context.machine, "settings", named)
    assert done(context, result("echo x > /iexec_out/r")).digest == sha256(b"x\n")


def test_a_home_folder_may_hold_spaces_and_colons(context: WorkerContext, tmp_path: Path) -> None:
    odd = Layout(tmp_path / "a b:c,d")
    odd.make()
    context.layout = odd
    object.__setattr__(context.machine, "layout", odd)
    assert done(context, result("echo x > /iexec_out/r")).digest == sha256(b"x\n")


def test_a_foreign_authorization_is_declined_before_anything_runs(context: WorkerContext) -> None:
    found = done(context, "true", authorization="0x" + "11" * 64 + "1b")
    assert found.stage is ReplicateStage.FAILED
    assert found.container_id is None


def test_an_app_has_no_privileges_and_few_processes(context: WorkerContext) -> None:
    limit = "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max"
    done(context, result(f"grep -E ^CapEff\\|^NoNewPrivs /proc/self/status > /iexec_out/r; {limit}"))
    # CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID: bits 0, 1, 3, 5, 6, 7.
    assert zipped(context)["r"] == b"CapEff:\t00000000000000eb\nNoNewPrivs:\t1\n"
    assert zipped(context)["stdout.txt"] == b"512\n"


def test_an_app_of_any_user_can_write_its_output(context: WorkerContext, engine_host: str) -> None:
    built(engine_host, "sluice-test/user:1", f"FROM {IMAGE}\nUSER 4321\n")
    params = json.dumps({"iexec_args": f"sh -c '{result('id -u > /iexec_out/r')}'"})
    compute(context, assignment(1, image="sluice-test/user:1", params=params))
    found = context.journal.find(task_id(1))
    assert found is not None
    assert found.digest == sha256(b"4321\n")


def test_an_abort_kills_the_container_and_leaves_no_result(context: WorkerContext) -> None:
    worker = threading.Thread(target=_compute_apart, args=(context, assignment(1, **shell("sleep 3600"))))
    worker.start()
    wait_until(lambda: _running(context), 20, what="the container's start")
    steps.abort(context, task_id(1))
    worker.join(ample(20))
    assert not worker.is_alive()
    found = context.journal.find(task_id(1))
    assert found is not None
    assert found.stage is ReplicateStage.ABORTED


def test_a_late_removal_takes_the_container_of_its_own_attempt_only(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Callable[[], None]] = []
    monkeypatch.setattr(context.reports, "later", late.append)
    done(context, result("echo x > /iexec_out/r"))
    for _, container in context.engine.containers_of(WORKER_KEY.wallet):
        context.engine.remove(container)
    context.journal.forget([task_id(1)])
    worker = threading.Thread(target=_compute_apart, args=(context, assignment(1, **shell("sleep 3600"))))
    worker.start()
    wait_until(lambda: _running(context), 20, what="the second attempt's start")
    for act in late:
        act()
    assert late
    assert _running(context)
    steps.abort(context, task_id(1))
    worker.join(ample(20))
    assert not worker.is_alive()


def _compute_apart(context: WorkerContext, wanted: Assignment) -> None:
    """As another process of the machine would: with connections of its own."""
    own = WorkerContext(context.machine)
    compute(own, wanted)
    own.close()


def _running(context: WorkerContext) -> bool:
    try:
        return any(
            context.engine.state(container).running for _, container in context.engine.containers_of(WORKER_KEY.wallet)
        )
    except NoSuchContainer:
        # One of an earlier attempt was removed just now.
        return False
