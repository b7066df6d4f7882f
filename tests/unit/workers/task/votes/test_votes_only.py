"""A machine that may not start, and only reveals its votes, as its upkeep does it."""

from __future__ import annotations

from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.types import TaskId
from protocol.wire import Mode
from tests.unit.workers.assignments import LATER
from tests.unit.workers.upkeep_world import World, view
from workers import control
from workers.task.replicate import ReplicateStage


def test_a_machine_that_only_reveals_its_votes_ends_once_the_chain_has_them_whatever_the_pool_says(
    world: World,
) -> None:
    world.votes_only, world.pong = True, None
    task = world.put(ReplicateStage.COMMITTED)
    world.put(ReplicateStage.COMMITTED, Mode.SOLO, number=2)
    world.put(ReplicateStage.COMPUTED, number=3)
    control.ask_to_drain(world.layout, world.clock)
    waiting: list[dict[TaskId, ChainView] | None] = [
        None,
        {task: view(task, TaskStatus.ACTIVE)},
        {task: view(task, TaskStatus.REVEALING)},
    ]
    for views in waiting:
        world.views = views
        upkeep = world.upkeep
        upkeep.run_once()
        assert not upkeep.drained
    world.views = {task: view(task, TaskStatus.REVEALING, ContributionStatus.REVEALED)}
    world.unmined = 1
    upkeep = world.upkeep
    upkeep.run_once()
    assert not upkeep.drained
    world.unmined = 0
    upkeep.run_once()
    assert upkeep.drained


def test_a_machine_that_only_reveals_its_votes_does_not_wait_for_one_that_is_too_late(world: World) -> None:
    world.votes_only, world.pong, world.views = True, None, None
    world.put(ReplicateStage.COMMITTED)
    control.ask_to_drain(world.layout, world.clock)
    world.clock = LATER + 301.0
    upkeep = world.upkeep
    upkeep.run_once()
    assert upkeep.drained
