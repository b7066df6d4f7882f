"""How a task may fail on a real engine: by its inputs, its image, its app or its output, or by this machine."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from protocol.results.error_result import (
    MACHINE_FAILED,
    MACHINE_MEMORY,
    UNCLEAR_END,
    Failure,
    blames_task,
    cause_code,
    error_digest,
)
from protocol.wire import Dataset, Step
from tests.integration.workers.conftest import IMAGE, ReportingPool
from tests.integration.workers.scripts import built, done, result, serving, sha256, zipped
from tests.unit.workers.assignments import assignment, task_id
from workers.context import WorkerContext
from workers.sandbox.engine.container import Engine
from workers.sandbox.spec import NANOSECONDS, Limits
from workers.task.compute import compute
from workers.task.replicate import Replicate, ReplicateStage

LINKED = "sluice-test/foreign:1"


def test_a_dataset_with_another_checksum_gives_the_error_result_of_iexec_worker(
    context: WorkerContext, tmp_path: Path, pool: ReportingPool
) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "data").write_bytes(b"other")
    with serving(tmp_path / "www") as url:
        dataset = Dataset(address="0x" + "ab" * 20, url=f"{url}/data", checksum=sha256(b"dataset"))
        found = done(context, "true", dataset=dataset)
    assert found.digest == "0xc276b4a3cbe341163601818dfa3d7f5f8db8cc35f00c9c30666864e39c96b565"
    assert pool.wait_for(Step.COMPUTED).cause == Failure.DATASET_CHECKSUM


def test_a_missing_dataset_and_a_missing_input_file_give_the_error_results_of_iexec_worker(
    context: WorkerContext, tmp_path: Path
) -> None:
    (tmp_path / "www").mkdir()
    with serving(tmp_path / "www") as url:
        dataset = Dataset(address="0x" + "ab" * 20, url=f"{url}/none", checksum=sha256(b""))
        assert done(context, "true", dataset=dataset).digest == error_digest(Failure.DATASET_FILE)
        params = json.dumps({"iexec_input_files": [f"{url}/none"]})
        compute(context, assignment(2, image=IMAGE, params=params))
    found = context.journal.find(task_id(2))
    assert found is not None
    assert found.digest == error_digest(Failure.INPUT_FILES)


def test_an_input_file_in_the_local_network_is_refused(context: WorkerContext) -> None:
    closed = context.machine.settings.model_copy(update={"allow_private_downloads": False})
    object.__setattr__(context.machine, "settings", closed)
    params = json.dumps({"iexec_input_files": ["http://169.254.169.254/latest/meta-data/"]})
    compute(context, assignment(1, image=IMAGE, params=params))
    found = context.journal.find(task_id(1))
    assert found is not None
    assert found.cause == Failure.INPUT_FILES


@pytest.mark.parametrize("image", ["sluice-test/shell", "NOT/A/Name:1", "../containers/x:1", "x" * 600 + ":1"])
def test_an_image_that_cannot_be_had_gives_the_error_result_of_iexec_worker(context: WorkerContext, image: str) -> None:
    found = _with_image(context, image)
    assert found.digest == "0x6b234cc858ad3404f912dd7f119afe2178251bec64cb25e5cbeba61dd764fc5d"
    assert found.stage is ReplicateStage.COMPUTED


def _with_image(context: WorkerContext, image: str) -> Replicate:
    compute(context, assignment(1, image=image))
    found = context.journal.find(task_id(1))
    assert found is not None
    return found


def test_an_app_that_exits_1_leaves_an_error_result_with_its_logs(context: WorkerContext, pool: ReportingPool) -> None:
    found = done(context, "echo broken >&2; echo partial > /iexec_out/junk; exit 1")
    assert (found.digest, found.exit_code) == (error_digest(Failure.APP), 1)
    files = zipped(context)
    assert b"APP_COMPUTE_FAILED" in files["error.txt"]
    assert files["stderr.txt"] == b"broken\n"
    assert "junk" not in files
    report = pool.wait_for(Step.COMPUTED)
    assert (report.exit_code, report.cause, report.stderr) == (1, Failure.APP, "broken\n")


def test_a_computed_json_counts_even_if_the_app_failed_after_it(context: WorkerContext) -> None:
    found = done(context, result("echo x > /iexec_out/r") + "; echo lost; exit 3")
    assert (found.digest, found.exit_code, found.cause) == (sha256(b"x\n"), 3, None)
    assert "stdout.txt" not in zipped(context)


def test_an_app_that_never_ends_is_killed_at_its_limit(context: WorkerContext) -> None:
    began = time.monotonic()
    found = done(context, "while true; do sleep 1; done", category_seconds=2)
    assert found.digest == error_digest(Failure.APP_TIMEOUT)
    assert time.monotonic() - began >= 2


def test_an_app_that_cannot_be_started_is_the_apps_failure(context: WorkerContext) -> None:
    compute(context, assignment(1, image=IMAGE, params="/no/such/program"))
    found = context.journal.find(task_id(1))
    assert found is not None
    assert found.digest == error_digest(Failure.APP)


def test_an_app_without_a_result_says_so_in_the_error_result(context: WorkerContext) -> None:
    assert done(context, "true").digest == error_digest(Failure.COMPUTED_FILE)


HUNGRY = result("echo x > /iexec_out/r") + "; head -c 200000000 /dev/zero | tail -c 200000000"


def test_an_app_that_needs_more_memory_than_the_pool_promises_has_failed_by_itself(context: WorkerContext) -> None:
    found = done(context, HUNGRY)
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, Failure.OUT_OF_MEMORY)
    assert found.digest == error_digest(Failure.OUT_OF_MEMORY)
    assert f"{64 * 2**20} bytes".encode() in zipped(context)["why.txt"]


def test_a_machine_with_less_memory_than_the_pool_promises_declines_instead(
    context: WorkerContext, pool: ReportingPool
) -> None:
    promised = context.machine.pool.model_copy(update={"memory_per_slot": 2**30})
    object.__setattr__(context.machine, "pool", promised)
    assert done(context, HUNGRY).stage is ReplicateStage.FAILED
    assert cause_code(pool.wait_for(Step.FAILED).cause) == MACHINE_MEMORY


def test_a_machine_that_does_not_see_whose_memory_ran_out_declines_instead(
    context: WorkerContext, pool: ReportingPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a worker in a container without its host's cgroups, on version 2."""
    resources = replace(context.machine.engine_resources, cgroups=2)
    monkeypatch.setitem(context.machine.__dict__, "engine_resources", resources)
    monkeypatch.setattr("workers.sandbox.memory._PLACES", ())
    monkeypatch.setattr("workers.sandbox.memory._PROCESSES", tmp_path)
    assert done(context, HUNGRY).stage is ReplicateStage.FAILED
    assert cause_code(pool.wait_for(Step.FAILED).cause) == MACHINE_MEMORY


def test_a_failed_app_of_a_callback_deal_is_declined_and_says_why(context: WorkerContext, pool: ReportingPool) -> None:
    assert done(context, "exit 1", callback="0x" + "cc" * 20).stage is ReplicateStage.FAILED
    cause = pool.wait_for(Step.FAILED).cause
    assert blames_task(cause)
    assert "exit code 1" in str(cause)


@pytest.mark.parametrize(
    "limits", [Limits(5_000_000, NANOSECONDS), Limits(64 * 2**20, 4096 * NANOSECONDS)], ids=["memory", "processors"]
)
def test_limits_that_the_engine_refuses_are_not_the_apps_failure(
    context: WorkerContext, pool: ReportingPool, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.context.Machine.limits", limits)
    assert done(context, result("echo x > /iexec_out/r")).stage is ReplicateStage.FAILED
    assert cause_code(pool.wait_for(Step.FAILED).cause) == MACHINE_FAILED


def test_an_image_for_another_processor_is_declined(
    context: WorkerContext, pool: ReportingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "platform", ("linux", "riscv64"))
    assert done(context, result("echo x > /iexec_out/r")).stage is ReplicateStage.FAILED
    assert "riscv64" in str(pool.wait_for(Step.FAILED).cause)


@pytest.mark.parametrize("link", ["/proc", "/proc/1", "/iexec_in", "/sys/new", "/dev/null"])
def test_an_image_whose_links_keep_the_engine_from_giving_it_folders_is_declined_at_once_and_held_against_nobody(
    context: WorkerContext, engine_host: str, link: str
) -> None:
    built(engine_host, LINKED, f'FROM {IMAGE}\nRUN ["/bin/busybox", "ln", "-s", "{link}", "/iexec_in"]\n')
    with capture_logs() as logs:
        found = done(context, "true", image=LINKED)
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    assert "engine_retry" not in {line["action"] for line in logs}


def test_a_program_for_another_processor_is_declined_too(
    context: WorkerContext, pool: ReportingPool, engine_host: str
) -> None:
    foreign = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01" + bytes(200)
    built(engine_host, "sluice-test/foreign:1", f"FROM {IMAGE}\nCOPY app /app\n", app=foreign)
    compute(context, assignment(1, image="sluice-test/foreign:1", params=json.dumps({"iexec_args": "/app"})))
    report = pool.wait_for(Step.FAILED)
    assert cause_code(report.cause) == UNCLEAR_END
    # What it printed is for the requester alone.
    assert "exec format error" in str(report.stderr)
    assert "exec format error" not in str(report.cause)


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("ln -s /etc/shadow /iexec_out/r", Failure.RESULT_DIGEST),
        ("ln -s /dev/zero /iexec_out/r", Failure.RESULT_DIGEST),
        ("mkfifo /iexec_out/r", Failure.RESULT_DIGEST),
        ("echo x > /iexec_out/r; touch /iexec_out/a-name-of-more-than-thirty-one-characters", Failure.FILE_NAME),
        ("head -c 9000000 /dev/zero > /iexec_out/r", Failure.OUTPUT_ZIP),
        ("truncate -s 1T /iexec_out/r; echo x > /iexec_out/r; truncate -s 10G /iexec_out/s", Failure.OUTPUT_ZIP),
    ],
)
def test_hostile_output_ends_in_a_defined_result(context: WorkerContext, script: str, failure: Failure) -> None:
    found = done(context, result(script))
    assert found.stage is ReplicateStage.COMPUTED
    assert found.cause == failure


def test_folders_nested_thousands_deep_are_refused_and_removed(context: WorkerContext) -> None:
    script = "cd /iexec_out; i=0; while [ $i -lt 1500 ]; do mkdir d; cd d; i=$((i+1)); done; echo x > /iexec_out/r"
    assert done(context, result(script)).cause == Failure.OUTPUT_ZIP
    context.layout.task(task_id(1)).remove()
    assert not context.layout.task(task_id(1)).root.exists()


def test_an_app_that_fills_the_disk_is_killed_long_before_its_time(context: WorkerContext) -> None:
    # It would end in an hour by itself, and be ended in two.
    found = done(context, "dd if=/dev/zero of=/iexec_out/r bs=1048576 count=40; sleep 3600", category_seconds=7200)
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, Failure.OUTPUT_ZIP)
    assert found.digest == error_digest(Failure.OUTPUT_ZIP)
