"""What apps that mean harm can do to the machine that runs them: nothing that outlives them, and the next app runs."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.results.error_result import MACHINE_FAILED, UNCLEAR_END, cause_code
from protocol.wire import Step
from tests.integration.workers.conftest import ReportingPool
from tests.integration.workers.hostile import ATTACKS, IN_STRICT
from tests.integration.workers.hostile_machine import (
    FORBIDDEN,
    PIDS,
    answers_of_kernel,
    attack,
    build_hostile_image,
    confine,
    lower_limits,
    require_next_task_runs,
    run,
    unharmed,
)
from tests.unit.workers.assignments import WORKER_KEY
from workers.context import WorkerContext
from workers.sandbox import disk, spec
from workers.task.replicate import ReplicateStage


@pytest.fixture(scope="module")
def hostile_image(engine_host: str) -> str:
    """The engine has the image of all hostile apps."""
    return build_hostile_image(engine_host)


@pytest.fixture
def machine(
    context: WorkerContext, hostile_image: str, engine_host: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WorkerContext]:
    """A machine with low limits, which is as it was after whatever has run on it."""
    lower_limits(monkeypatch)
    with unharmed(context, engine_host):
        yield context


@pytest.mark.parametrize(
    ("profile", "name"), [*(("compat", name) for name in ATTACKS), *(("strict", name) for name in IN_STRICT)]
)
def test_a_hostile_app_gets_the_cause_that_is_true_and_the_next_task_runs(
    machine: WorkerContext, pool: ReportingPool, tmp_path: Path, profile: str, name: str
) -> None:
    ends = ATTACKS[name].ends
    # In strict, it may have failed for what a strict machine keeps from it.
    attack(
        machine, pool, profile, name, f"{abs(hash(tmp_path))}", UNCLEAR_END if profile == "strict" and ends else ends
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is for x86-64")
@pytest.mark.parametrize("profile", ["compat", "strict"])
def test_the_kernel_refuses_an_app_all_that_reaches_beyond_its_container(machine: WorkerContext, profile: str) -> None:
    confine(machine, profile)
    answers, printed = answers_of_kernel(machine)
    allowed = [call.name for call, answer in zip(FORBIDDEN, answers, strict=False) if answer >= 0]
    assert not allowed
    open_files, core, shared, pids, covered, _ = map(int, printed)
    assert (open_files, core, shared, pids, covered) == (
        spec.OPEN_FILES,
        0,
        spec.SHARED_MEMORY_BYTES // 1024,
        PIDS,
        0,
    )
    require_next_task_runs(machine)


def test_an_app_on_a_disk_that_others_fill_is_killed_and_nobody_votes(
    machine: WorkerContext, pool: ReportingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(*_: object) -> float:
        return 0.5 if machine.engine.containers_of(WORKER_KEY.wallet) else 2.0

    with monkeypatch.context() as full:
        full.setattr(disk, "free_share", share)
        found = run(machine, 1, "sh -c 'sleep 3600'")
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, MACHINE_FAILED)
    assert "free" in str(pool.wait_for(Step.FAILED).cause)
    require_next_task_runs(machine)
