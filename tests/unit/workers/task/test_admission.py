"""A machine whose own clock is off says so, and does not say that the task came too late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from protocol.errors import TaskDeclined
from protocol.results.error_result import CONTRIBUTION_TIMEOUT, MACHINE_FAILED
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from workers.task import admission
from workers.task.replicate import Replicate, ReplicateStage

#: Unix seconds by the chain and by the pool.
NOW = 1_800_000_000
HOUR = 3600


def cause(*, ahead: int, deadline: int) -> str:
    """Why a machine whose clock is so many seconds ahead declines a task with this contribution deadline."""
    machine = SimpleNamespace(
        wallet=WORKER_KEY.wallet, api=SimpleNamespace(time=lambda: NOW), settings=SimpleNamespace(block_time=1.0)
    )
    rpc = SimpleNamespace(name="node", call=lambda *_: {"timestamp": hex(NOW)})
    context: Any = SimpleNamespace(machine=machine, rpc=rpc, now=lambda: float(NOW + ahead))
    wanted = assignment(contribution_deadline=deadline)
    with pytest.raises(TaskDeclined) as declined:
        admission.require(context, Replicate(task_id(1), wanted, ReplicateStage.TAKEN))
    return str(declined.value.fields["cause"])


def test_a_machine_whose_clock_is_an_hour_ahead_declines_for_its_own_trouble() -> None:
    assert cause(ahead=HOUR, deadline=NOW + HOUR // 2) == MACHINE_FAILED


def test_a_task_that_is_over_is_declined_as_such_by_a_machine_whose_clock_is_right() -> None:
    assert cause(ahead=0, deadline=NOW - 1) == CONTRIBUTION_TIMEOUT
