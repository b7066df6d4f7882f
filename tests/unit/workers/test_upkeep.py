"""What a machine does by itself when messages are lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from config.settings import read_settings
from protocol.errors import EngineUnavailable
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.wire import Mode, Pong
from tests.unit.workers.assignments import LATER, task_id
from tests.unit.workers.upkeep_world import World, view
from workers.care import upkeep_process
from workers.care.reveals import REVEAL_CHECK_SECONDS
from workers.care.upkeep import RESUME_SECONDS
from workers.task.replicate import ReplicateStage, Todo
from workers.task.steps import MOST_REVEALS


def test_what_its_own_message_may_still_move_is_left_alone(world: World) -> None:
    world.put(ReplicateStage.TAKEN)
    world.clock += RESUME_SECONDS - 1
    world.upkeep.run_once()
    assert world.sent == []


@pytest.mark.parametrize(
    ("stage", "mode", "expected"),
    [
        (ReplicateStage.TAKEN, Mode.VOTE, Todo.COMPUTE),
        (ReplicateStage.RUNNING, Mode.VOTE, Todo.COMPUTE),
        (ReplicateStage.COMPUTED, Mode.VOTE, Todo.CONTRIBUTE),
        (ReplicateStage.COMPUTED, Mode.SOLO, Todo.UPLOAD),
    ],
)
def test_a_task_whose_message_was_lost_is_moved_on(
    world: World, stage: ReplicateStage, mode: Mode, expected: Todo
) -> None:
    task = world.put(stage, mode)
    world.clock += RESUME_SECONDS
    world.upkeep.run_once()
    assert world.sent == [(expected, task)]


def test_a_task_is_not_moved_on_twice_within_the_same_pause(world: World) -> None:
    world.put(ReplicateStage.TAKEN)
    world.clock += RESUME_SECONDS
    upkeep = world.upkeep
    upkeep.run_once()
    upkeep.run_once()
    assert len(world.sent) == 1


def test_a_task_whose_computing_changes_nothing_is_begun_ever_more_rarely(world: World) -> None:
    """As on a full disk: it would download and run every ten seconds."""
    world.put(ReplicateStage.RUNNING)
    upkeep, begun = world.upkeep, []
    for _ in range(200):
        world.clock += RESUME_SECONDS
        upkeep.run_once()
        begun.append(len(world.sent))
    assert begun[0] == 1
    # 10, 20, 40, … 640 s, then every 600.
    assert begun[-1] == 9


def test_an_upload_that_failed_is_tried_again_as_often_as_ever(world: World) -> None:
    world.put(ReplicateStage.COMPUTED, Mode.SOLO)
    upkeep = world.upkeep
    for _ in range(20):
        world.clock += RESUME_SECONDS
        upkeep.run_once()
    assert len(world.sent) == 20


def test_a_task_that_no_thread_was_free_for_is_moved_on_at_the_next_look(world: World) -> None:
    task = world.put(ReplicateStage.COMPUTED)
    world.clock += RESUME_SECONDS
    upkeep, world.busy = world.upkeep, True
    upkeep.run_once()
    assert world.sent == []
    world.busy = False
    upkeep.run_once()
    assert world.sent == [(Todo.CONTRIBUTE, task)]


def test_a_task_that_a_process_is_at_is_left_to_it(world: World) -> None:
    task = world.put(ReplicateStage.RUNNING)
    world.clock += RESUME_SECONDS
    with world.layout.lock(task, wait=True):
        world.upkeep.run_once()
    assert world.sent == []


def test_a_winning_vote_is_revealed_even_if_the_pool_is_away_and_never_asks(world: World) -> None:
    task = world.put(ReplicateStage.COMMITTED)
    world.pong = None
    world.views = {task: view(task, TaskStatus.REVEALING)}
    world.clock += REVEAL_CHECK_SECONDS
    reveals = world.reveals
    reveals.run_if_due()
    assert world.sent == [("reveal", task)]
    # At each head that follows, nothing is asked for a while.
    world.views = None
    reveals.run_if_due()


def test_a_reveal_that_fails_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    task = world.put(ReplicateStage.COMMITTED)
    world.views = {task: view(task, TaskStatus.REVEALING)}
    world.clock += REVEAL_CHECK_SECONDS
    reveals = world.reveals
    with monkeypatch.context() as broken:
        broken.setattr("workers.task.steps.reveal", lambda *_: 1 / 0)
        reveals.run_if_due()
    world.clock += REVEAL_CHECK_SECONDS
    reveals.run_if_due()
    assert world.sent == [("reveal", task)]


def test_a_vote_is_revealed_by_the_thread_that_follows_the_chain_and_asks_the_pool_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The thread that pings may wait for ever for the end of a pool's answer.
    task = world.put(ReplicateStage.COMMITTED)
    world.views = {task: view(task, TaskStatus.REVEALING)}
    world.clock += REVEAL_CHECK_SECONDS
    context = world.context
    context.close = lambda: None
    monkeypatch.setattr(upkeep_process, "WorkerContext", lambda _: context)
    monkeypatch.setattr(upkeep_process, "UnaskedReveals", lambda _: world.reveals)
    stop = threading.Event()

    def one_head(*_: object) -> Iterator[int]:
        yield 1
        stop.set()

    monkeypatch.setattr(upkeep_process, "heads", one_head)
    machine: Any = SimpleNamespace(settings=read_settings(ws_url=None))
    upkeep_process._follow_heads(machine, context.lane_wakeup, cast("Any", Mock(needs_no_heads=False)), stop)
    assert world.sent == [("reveal", task)]
    assert world.pinged == []


def test_a_vote_that_was_revealed_or_waits_for_consensus_is_not_revealed(world: World) -> None:
    waiting, revealed = world.put(ReplicateStage.COMMITTED, number=1), world.put(ReplicateStage.COMMITTED, number=2)
    world.views = {
        waiting: ChainView(waiting, TaskStatus.ACTIVE),
        revealed: view(revealed, TaskStatus.REVEALING, ContributionStatus.REVEALED),
    }
    world.clock += REVEAL_CHECK_SECONDS
    world.reveals.run_if_due()
    assert world.sent == []


def test_what_is_over_is_forgotten_with_its_files(world: World) -> None:
    task = world.put(ReplicateStage.REVEALED)
    world.pong = Pong(forget=[task], abort=[])
    world.upkeep.run_once()
    assert world.journal.find(task) is None
    assert not world.layout.task(task).root.exists()


@pytest.mark.parametrize("status", [TaskStatus.ACTIVE, TaskStatus.REVEALING])
def test_an_unrevealed_vote_is_kept_though_the_pool_forgot_the_task(world: World, status: TaskStatus) -> None:
    task = world.put(ReplicateStage.COMMITTED)
    world.pong = Pong(forget=[task], abort=[])
    world.views = {task: view(task, status)}
    world.upkeep.run_once()
    assert world.journal.find(task) is not None


def test_an_unrevealed_vote_is_kept_while_the_chain_does_not_answer(world: World) -> None:
    task = world.put(ReplicateStage.COMMITTED)
    world.pong = Pong(forget=[task], abort=[])
    world.views = None
    world.upkeep.run_once()
    assert world.journal.find(task) is not None


def test_a_vote_on_a_task_that_ended_on_chain_is_forgotten(world: World) -> None:
    task = world.put(ReplicateStage.COMMITTED)
    world.pong = Pong(forget=[task], abort=[])
    world.views = {task: view(task, TaskStatus.COMPLETED)}
    world.upkeep.run_once()
    assert world.journal.find(task) is None


def test_a_task_that_is_over_while_it_is_computed_is_stopped_first(world: World) -> None:
    task = world.put(ReplicateStage.RUNNING)
    world.pong = Pong(forget=[task], abort=[])
    world.upkeep.run_once()
    found = world.journal.find(task)
    assert found is not None
    assert found.stage is ReplicateStage.ABORTED
    assert len(world.killed) == 1


def test_stray_containers_are_removed_and_those_at_work_are_not(world: World) -> None:
    at_work, done = world.put(ReplicateStage.RUNNING, number=1), world.put(ReplicateStage.COMPUTED, number=2)
    world.containers = [(at_work, "at work"), (done, "done"), (task_id(9), "unknown")]
    world.upkeep.run_once()
    assert world.removed == ["done", "unknown"]


@pytest.mark.parametrize("error", [RuntimeError("500 device or resource busy"), EngineUnavailable(what="d", why="w")])
def test_a_container_that_cannot_be_removed_leaves_the_others_and_the_rest_of_the_look(
    world: World, error: Exception
) -> None:
    unchanged = world.put(ReplicateStage.TAKEN)
    world.clock += RESUME_SECONDS
    world.containers = [(task_id(8), "stuck"), (task_id(9), "stray")]
    world.stuck = {"stuck": error}
    upkeep = world.upkeep
    upkeep.run_once()
    upkeep.run_once()
    assert world.removed == ["stray", "stray"]
    assert world.sent == [(Todo.COMPUTE, unchanged)]


@pytest.mark.parametrize("part", ["_ping", "_resume", "_sweep_containers"])
def test_no_part_of_the_look_stops_another(world: World, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    upkeep = world.upkeep
    for name in ("_ping", "_resume", "_sweep_containers"):

        def play(*_: object, name: str = name) -> None:
            done.append(name)
            if name == part:
                raise KeyError(name)

        play.__name__ = name
        monkeypatch.setattr(upkeep, name, play)
    upkeep.run_once()
    assert done == ["_ping", "_resume", "_sweep_containers"]


@pytest.mark.parametrize("stage", list(ReplicateStage))
def test_what_a_pool_with_a_lost_database_does_not_know_is_gone_on_with(world: World, stage: ReplicateStage) -> None:
    task = world.put(stage)
    world.pong = Pong(forget=[], abort=[], unknown=[task])
    world.upkeep.run_once()
    assert (found := world.journal.find(task)) is not None
    assert found.stage is stage
    assert world.killed == []


def test_what_the_pool_does_not_know_is_forgotten_once_nothing_can_come_of_it(world: World) -> None:
    task = world.put(ReplicateStage.FAILED)
    world.pong = Pong(forget=[], abort=[], unknown=[task])
    world.clock = LATER + 1.0
    world.upkeep.run_once()
    assert world.journal.find(task) is None


def test_a_machine_whose_wallet_was_taken_over_knows_it(world: World) -> None:
    upkeep = world.upkeep
    upkeep.run_once()
    assert not upkeep.superseded
    world.pong = Pong(forget=[], abort=[], superseded=True)
    upkeep.run_once()
    assert upkeep.superseded


def test_a_kill_between_the_row_and_the_files_of_a_task_that_is_over_leaves_no_row_without_its_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(_: object) -> None:
        raise Killed

    task = world.put(ReplicateStage.REVEALED)
    world.pong = Pong(forget=[task], abort=[])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("workers.data.layout.TaskFolders.remove", kill)
        world.upkeep.run_once()
    # An upload that is asked for now finds nothing to do, and no file missing.
    assert world.journal.find(task) is None
    world.upkeep.delete_leftovers()
    assert not world.layout.task(task).root.exists()


def test_a_machine_that_cannot_keep_apps_off_its_network_takes_none_until_it_can(world: World) -> None:
    upkeep = world.upkeep
    world.layout.unconfined.write_text("the firewall was loaded anew")
    upkeep.run_once()
    upkeep.run_once()
    assert len(world.left) == 2
    world.layout.unconfined.unlink()
    upkeep.run_once()
    assert len(world.left) == 2


def test_a_machine_that_is_not_fit_to_vote_takes_no_task_until_it_is(world: World) -> None:
    world.layout.unfit.write_text("the wallet has no gas")
    world.upkeep.run_once()
    assert len(world.left) == 1
    world.layout.unfit.unlink()
    world.upkeep.run_once()
    assert len(world.left) == 1


def test_a_machine_that_may_spend_no_more_signs_off_with_each_ping_still_reveals_and_comes_back(world: World) -> None:
    task = world.put(ReplicateStage.COMMITTED)
    world.views = {task: view(task, TaskStatus.REVEALING)}
    world.limit = "the day's gas is spent"
    world.clock += REVEAL_CHECK_SECONDS
    upkeep = world.upkeep
    upkeep.run_once()
    world.reveals.run_if_due()
    assert (len(world.left), world.sent) == (1, [("reveal", task)])
    upkeep.run_once()
    world.limit = None
    upkeep.run_once()
    assert len(world.left) == 2


def test_old_results_are_a_line_of_log_only_when_there_were_some(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    unpinned = iter([0, 2])
    monkeypatch.setattr("workers.task.own_copy.unpin_old", lambda *_: next(unpinned))
    upkeep = world.upkeep
    machine: Any = upkeep._context.machine
    machine.layout = world.layout
    machine.settings = SimpleNamespace(worker_ipfs_api="http://node", keep_results_days=90.0, dataset_disk_bytes=0)
    with capture_logs() as said:
        for _ in range(2):
            upkeep._tidied_at = 0.0
            upkeep._tidy()
    assert [line["results"] for line in said if line["action"] == "own_copies_unpinned"] == [2]


def test_a_reveal_that_the_lane_gave_up_is_tried_again_while_the_task_waits_for_it(world: World) -> None:
    task = world.put(ReplicateStage.REVEALED)
    world.views = {task: view(task, TaskStatus.REVEALING)}
    world.clock += REVEAL_CHECK_SECONDS
    world.reveals.run_if_due()
    assert world.sent == []
    world.given_up = 1
    world.reveals.run_if_due()
    assert world.sent == [("reveal", task)]
    world.given_up = MOST_REVEALS
    world.clock += REVEAL_CHECK_SECONDS
    world.reveals.run_if_due()
    assert len(world.sent) == 1


def test_a_look_asks_the_lane_as_often_for_many_tasks_as_for_one(world: World) -> None:
    asked = []
    for number in range(1, 4):
        world.put(ReplicateStage.REVEALED, number=number)
        world.put(ReplicateStage.COMPUTED, number=10 + number)
        world.lane_asked = 0
        world.reveals.run_if_due()
        asked.append(world.lane_asked)
    assert asked == [2, 2, 2]
