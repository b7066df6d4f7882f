"""All hostile apps on a strict machine: `make test-strict`. `make test` has nine of them, in `test_hostile_apps.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.results.error_result import UNCLEAR_END, Failure
from tests.integration.workers.conftest import ReportingPool
from tests.integration.workers.hostile import ATTACKS
from tests.integration.workers.hostile_machine import attack, require_true_cause
from tests.integration.workers.test_hostile_apps import hostile_image, machine
from workers.context import WorkerContext

__all__ = ["hostile_image", "machine"]

#: A read-only root file system takes nothing of these: the app gets no further, and waits until its time is over.
NO_ROOM = dict.fromkeys(
    ("its own layer", "many files in its own layer", "the engine's hosts file"), Failure.APP_TIMEOUT
)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_app_on_a_strict_machine_is_declined_for_what_is_true_and_the_next_task_runs(
    machine: WorkerContext, pool: ReportingPool, tmp_path: Path, name: str
) -> None:
    ends = NO_ROOM.get(name, ATTACKS[name].ends)
    seconds = 1 if ends is Failure.APP_TIMEOUT else None
    found = attack(machine, pool, "strict", name, f"{abs(hash(tmp_path))}", ends and UNCLEAR_END, seconds)
    if ends is not None:
        require_true_cause(found, ends, or_memory=ATTACKS[name].or_memory)
