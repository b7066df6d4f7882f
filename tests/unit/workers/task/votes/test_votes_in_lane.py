"""What the lane knows of a vote, and the journal does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chain.lane.model.intent import Intent, IntentState
from protocol.poco.view import TaskStatus
from protocol.wire import Mode, Step
from tests.unit.workers.assignments import WORKER_KEY
from tests.unit.workers.upkeep_world import World, view
from workers.care.reveals import REVEAL_CHECK_SECONDS
from workers.task import votes
from workers.task.replicate import ReplicateStage


def test_a_vote_that_the_lane_has_is_revealed_although_its_process_ended_before_the_journal_knew(world: World) -> None:
    task = world.put(ReplicateStage.COMPUTED)
    unvoted = world.put(ReplicateStage.ABORTED, number=2)
    world.journal.mark_aborted(task, world.clock)
    world.voted = [task]
    world.views = {task: view(task, TaskStatus.REVEALING)}
    world.clock += REVEAL_CHECK_SECONDS
    world.reveals.run_if_due()
    assert world.sent == [("reveal", task)]
    still = world.journal.find(unvoted)
    assert still is not None
    assert still.stage is ReplicateStage.ABORTED


def test_a_vote_that_reverted_and_was_given_up_is_revealed_once_a_reorg_has_put_it_into_a_block(world: World) -> None:
    task = world.put(ReplicateStage.COMMITTED)
    world.journal.mark_failed(task, "reverted in block 7", world.clock)
    world.views = {task: view(task, TaskStatus.REVEALING)}
    world.clock += REVEAL_CHECK_SECONDS
    world.reveals.run_if_due()
    assert world.sent == []
    # The lane has followed the reorg: its vote is in a block.
    world.voted = [task]
    world.clock += REVEAL_CHECK_SECONDS
    world.reveals.run_if_due()
    assert world.sent == [("reveal", task)]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_vote_that_the_lane_gave_up_unheard_ends_its_task_which_is_reported(
    world: World, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run's process was killed before it said so, or was a command's."""
    task, other = world.put(ReplicateStage.COMMITTED, mode), world.put(ReplicateStage.COMMITTED, mode, number=2)
    upkeep, told = world.upkeep, list[tuple[str, Step, str | None]]()
    method = votes.SOLO if mode is Mode.SOLO else votes.CONTRIBUTE
    new = Intent.new(1, WORKER_KEY.wallet, method, task)
    given_up = replace(new, state=IntentState.FAILED, reason="the task is REVEALING")
    context = upkeep._context
    monkeypatch.setattr(context.lane, "intents", lambda keys: [each for each in [given_up] if each.key in keys])
    monkeypatch.setattr(context.reports, "send", lambda of, report: told.append((of, report.step, report.cause)))
    upkeep.run_once()
    upkeep.run_once()
    stages = {item.task_id: item.stage for item in world.journal.all_replicates()}
    assert stages == {task: ReplicateStage.FAILED, other: ReplicateStage.COMMITTED}
    assert told == [(task, Step.FAILED, "the task is REVEALING")]
