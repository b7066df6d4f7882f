"""A machine's clock is set back, e.g. by NTP after a wrong start: what was to be done soon is not put off till then."""

from __future__ import annotations

import pytest

from protocol.poco.view import TaskStatus
from protocol.wire import Mode
from tests.unit.workers.upkeep_world import World, view
from workers.care.reveals import LOOK_SECONDS, REVEAL_CHECK_SECONDS
from workers.care.upkeep import RESUME_SECONDS
from workers.moments import is_older
from workers.task import votes
from workers.task.replicate import ReplicateStage, Todo

YEAR = 365 * 86400.0


@pytest.mark.parametrize(
    ("moment", "now", "older"),
    [(100.0, 109.9, False), (100.0, 110.0, True), (100.0, 100.0, False), (100.0, 99.9, True), (100.0, 0.0, True)],
)
def test_a_stored_moment_in_the_future_counts_as_long_ago(moment: float, now: float, *, older: bool) -> None:
    assert is_older(moment, 10.0, now) is older


def test_a_winning_vote_is_revealed_though_the_clock_was_set_back_after_it(world: World) -> None:
    task = world.put(ReplicateStage.COMMITTED)
    world.views, reveals = {task: view(task, TaskStatus.ACTIVE)}, world.reveals
    world.clock += REVEAL_CHECK_SECONDS
    reveals.run_if_due()
    world.set_back = YEAR
    world.views = {task: view(task, TaskStatus.REVEALING)}
    world.clock += LOOK_SECONDS
    reveals.run_if_due()
    assert world.sent == [], "the chain was asked a moment ago"
    world.clock += REVEAL_CHECK_SECONDS
    reveals.run_if_due()
    assert world.sent == [(votes.REVEAL, task)]


def test_a_vote_of_before_a_start_at_which_the_clock_was_set_back_is_revealed_too(world: World) -> None:
    task = world.put(ReplicateStage.COMMITTED)
    world.views = {task: view(task, TaskStatus.REVEALING)}
    world.set_back = YEAR
    world.reveals.run_if_due()
    assert world.sent == [(votes.REVEAL, task)]


def test_a_task_whose_message_was_lost_is_moved_on_though_the_clock_was_set_back(world: World) -> None:
    task = world.put(ReplicateStage.COMPUTED, Mode.SOLO)
    upkeep = world.upkeep
    world.clock += RESUME_SECONDS
    upkeep.run_once()
    world.set_back = YEAR
    world.clock += RESUME_SECONDS
    upkeep.run_once()
    assert world.sent == [(Todo.UPLOAD, task)] * 2
