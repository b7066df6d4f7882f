"""The secret service is killed at each step of a confidential task, with a machine that simulates enclaves, a real
engine and the contracts: the task is completed all the same, and no secret is lost.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from protocol.poco.view import TaskStatus
from protocol.types import TaskId
from sms.challenges import challenge_place
from tests.integration import forged
from tests.integration.sms.service import Sms
from tests.integration.sms.test_enclave_machine import SECRETS, TASKS, Scene, said, scene
from tests.integration.workers.conftest import engine_host
from tests.integration.workers.restarts import one_replicate
from tests.integration.workers.restarts.one_replicate import Point
from tests.waiting import ample, until

__all__ = ["engine_host", "scene"]

#: What the service does in its store, in the order of a task: for the scheduler, ...
CHALLENGE = (Point("add", "before"), Point("add", "after"))
#: ... and for the machine.
SESSION = (
    Point("find", "after"),
    Point("add_session", "before"),
    Point("add_session", "after"),
    Point("take_session", "before"),
    Point("take_session", "after"),
)


def ended(service: Sms) -> bool:
    return service.process is not None and service.process.exitcode is not None


def restart(service: Sms, point: Point | None = None) -> None:
    service.kill()
    service.start(point)


def done(scene: Scene, index: int) -> None:
    """The task is completed by its machine, and nothing secret is left."""
    assert scene.shop.view(scene.deal.tasks[index]).status is TaskStatus.COMPLETED
    scene.no_trace(*SECRETS)
    scene.no_container()


@pytest.mark.parametrize(("index", "point"), [*enumerate(CHALLENGE)], ids=lambda given: str(getattr(given, "when", "")))
def test_a_challenge_whose_answer_never_came_is_told_when_it_is_asked_for_again(
    scene: Scene, index: int, point: Point
) -> None:
    restart(scene.sms, point)
    with pytest.raises(httpx.TransportError):
        scene.orders(index)
    until("the service's end", lambda: ended(scene.sms))
    restart(scene.sms)
    with MongoClient[dict[str, Any]](scene.mongodb) as client:
        rows = client[scene.sms.environment["SLUICE_SMS_DATABASE"]]["secrets"]
        stored = rows.find_one({"_id": challenge_place(scene.deal.tasks[index])})
    given = scene.orders(index)
    if point.when == "after":
        assert stored is not None
        assert given.assignment.enclave_challenge == stored["address"]
    else:
        assert stored is None
    given.begin()
    assert scene.run(given) == 0, said(scene)
    done(scene, index)


@pytest.mark.parametrize(
    ("index", "point"),
    [*enumerate(SESSION, start=len(CHALLENGE))],
    ids=lambda given: f"{given.when} {given.at}" if isinstance(given, Point) else "",
)
def test_a_machine_whose_session_was_lost_with_the_service_gets_another(scene: Scene, index: int, point: Point) -> None:
    assert len(CHALLENGE) + len(SESSION) <= TASKS
    restart(scene.sms)
    given = scene.orders(index)
    given.begin()
    restart(scene.sms, point)
    process = forged.start(one_replicate.main, given, out=scene.log)
    try:
        until("the service's end", lambda: ended(scene.sms))
        restart(scene.sms)
        process.join(ample(60.0))
        assert process.exitcode == 0, said(scene)
    finally:
        forged.kill(process)
    assert TaskId(given.assignment.task_id) == scene.deal.tasks[index]
    done(scene, index)
