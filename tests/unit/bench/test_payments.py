"""A task that the hub finalized, rewarded or charged for twice is told from one that was paid once."""

from __future__ import annotations

from typing import Any

from bench.rig.payments import count_payments
from chain.contracts.decode import encode
from chain.contracts.escrow import REWARD, SEIZE
from protocol.poco.events import TaskFinalize
from protocol.types import TaskId
from tests.unit.pipeline.builders import wallet

TASK, OTHER = TaskId("0x" + "7a" * 32), TaskId("0x" + "7b" * 32)
WORKER, SECOND, OWNER, REQUESTER = (wallet(number) for number in range(1, 5))


def finalize(task: TaskId = TASK) -> dict[str, Any]:
    topics, data = encode(TaskFinalize(task, "0x"))
    return {"topics": topics, "data": data}


def moved(topic: str, owner: str, amount: int, task: TaskId = TASK) -> dict[str, Any]:
    """A Reward or a Seize, none of whose arguments is indexed."""
    return {"topics": [topic], "data": f"0x{owner[2:].rjust(64, '0')}{amount:064x}{task[2:]}"}


ONCE = [finalize(), moved(SEIZE, REQUESTER, 100), moved(REWARD, WORKER, 60), moved(REWARD, SECOND, 20)]


def count(*logs: dict[str, Any]) -> Any:
    return count_payments(logs, [TASK], [WORKER, SECOND], REQUESTER)


def test_a_task_that_was_paid_once_is_in_order() -> None:
    paid = count(*ONCE, moved(REWARD, OWNER, 10), moved(REWARD, OWNER, 10))
    assert (paid.twice(), paid.unpaid([TASK])) == ([], [])
    assert (sum(paid.finalized.values()), sum(paid.rewarded.values())) == (1, 2)


def test_what_happened_twice_is_said() -> None:
    assert count(*ONCE, finalize()).twice() == [f"Task {TASK} was finalized 2 times."]
    assert count(*ONCE, moved(REWARD, WORKER, 60)).twice() == [f"Task {TASK}: wallet {WORKER} was rewarded 2 times."]
    assert count(*ONCE, moved(SEIZE, REQUESTER, 100)).twice() == [f"Task {TASK}: its requester was charged 2 times."]


def test_what_is_missing_is_said() -> None:
    said = count(*ONCE[1:]).unpaid([TASK])
    assert said == [f"Task {TASK} is COMPLETED, and has no TaskFinalize."]
    assert len(count().unpaid([TASK])) == 3


def test_payments_of_other_tasks_are_left_out() -> None:
    assert count(finalize(OTHER), moved(REWARD, WORKER, 1, OTHER), moved(SEIZE, REQUESTER, 1, OTHER)) == count()
