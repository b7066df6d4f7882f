"""Apps under gVisor, where this engine has it: its own kernel answers them, and one that never ends is killed."""

from __future__ import annotations

import pytest

from protocol.results.error_result import UNCLEAR_END, cause_code
from tests.integration.workers.conftest import IMAGE
from tests.integration.workers.test_compute import done, result
from tests.integration.workers.test_hostile_apps import confine
from tests.integration.workers.test_hostile_apps import run as run_attack
from workers.context import WorkerContext
from workers.task.replicate import ReplicateStage

RUNTIME = "runsc"


@pytest.fixture(autouse=True)
def gvisor(context: WorkerContext) -> None:
    """The machine runs apps by gVisor."""
    if RUNTIME not in context.engine.info()["Runtimes"]:
        pytest.skip(f"not run: this Docker engine has no runtime {RUNTIME} (gVisor)")
    confine(context, "isolated")


def test_an_isolated_app_is_answered_by_gvisors_kernel(context: WorkerContext) -> None:
    found = done(context, result("dmesg | grep -qi gvisor && echo x > /iexec_out/r"))
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)


def test_an_isolated_app_that_never_ends_is_killed_and_declined(context: WorkerContext) -> None:
    found = run_attack(context, 1, "sleep 100000", IMAGE, seconds=1)
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    assert "time was over" in str(found.cause)
