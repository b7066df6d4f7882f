"""What a machine does by itself when messages are lost; the pool, Docker and the chain are played here."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from chain.lane.model.intent import Intent
from protocol.errors import EngineUnavailable, PoolUnavailable, RpcUnavailable
from protocol.poco.view import ChainView, Contribution, ContributionStatus, TaskStatus
from protocol.types import BlockNumber, Hash32, TaskId, Timestamp
from protocol.wire import Mode, Pong, ResultLink
from tests.unit.workers.assignments import LATER, WORKER_KEY, assignment, task_id
from workers import upkeep_process
from workers.data.layout import Layout
from workers.reveals import REVEAL_CHECK_SECONDS, UnaskedReveals
from workers.task.journal import Journal
from workers.task.replicate import Replicate, ReplicateStage, Todo, todo
from workers.upkeep import RESUME_SECONDS, Upkeep

DIGEST = Hash32("0x" + "ab" * 32)
VOTE = Hash32("0x" + "cd" * 32)
LINK = ResultLink(storage="ipfs", location="/ipfs/Qm")


@dataclass
class World:
    """Everything that `Upkeep` calls, and what it did."""

    layout: Layout
    journal: Journal
    clock: float = 1000.0
    pong: Pong | None = field(default_factory=lambda: Pong(forget=[], abort=[]))
    views: dict[TaskId, ChainView] | None = field(default_factory=dict)
    containers: list[tuple[TaskId, str]] = field(default_factory=list)
    pinged: list[list[TaskId]] = field(default_factory=list)
    sent: list[tuple[str, TaskId]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    #: Why no task is taken, by the machine's own limits; and how often it signed off.
    limit: str | None = None
    left: list[str] = field(default_factory=list)
    #: Whether all threads that go on with lost tasks are at work.
    busy: bool = False
    #: Whether the machine may not start, and only reveals its votes; how many transactions of its lane are not mined.
    votes_only: bool = False
    unmined: int = 0
    #: What Docker says when one of these is to be removed.
    stuck: dict[str, Exception] = field(default_factory=dict)

    def now(self) -> float:
        return self.clock

    @property
    def hub(self) -> Any:
        """The chain, played."""
        return SimpleNamespace(tasks=self._tasks)

    @property
    def context(self) -> Any:
        machine = SimpleNamespace(
            wallet=WORKER_KEY.wallet,
            pool=SimpleNamespace(hub="0x" + "0" * 40, least_stake=None),
            settings=SimpleNamespace(worker_name="test"),
        )
        return SimpleNamespace(
            layout=self.layout,
            journal=self.journal,
            now=self.now,
            rpc=None,
            machine=machine,
            pool=SimpleNamespace(ping=self._ping, leave=self.left.append),
            ledger=SimpleNamespace(note_stakes=lambda: None, worth=lambda _: 0, why_no_work=lambda _: self.limit),
            chain_id=1,
            lane=SimpleNamespace(submit=self._submit, id="lane"),
            lane_store=SimpleNamespace(count=lambda *_: self.unmined),
            lane_wakeup=SimpleNamespace(notify=lambda: None),
            reports=SimpleNamespace(send=lambda *_: None),
            engine=SimpleNamespace(
                containers_of=lambda _: self.containers, remove=self._remove, kill=self.killed.append
            ),
        )

    @property
    def upkeep(self) -> Upkeep:
        resumer: Any = SimpleNamespace(resume=self._resume)
        upkeep = Upkeep(self.context, resumer, votes_only=self.votes_only)
        upkeep._hub = self.hub
        return upkeep

    @property
    def reveals(self) -> UnaskedReveals:
        reveals = UnaskedReveals(self.context)
        reveals._hub = self.hub
        return reveals

    def _resume(self, replicate: Replicate) -> bool:
        if self.busy:
            return False
        self.sent.append((todo(replicate) or "nothing", replicate.task_id))
        return True

    def _submit(self, intents: Sequence[Intent]) -> None:
        self.sent += [(intent.method, TaskId(intent.subject)) for intent in intents]

    def _remove(self, container: str) -> None:
        if container in self.stuck:
            raise self.stuck[container]
        self.removed.append(container)

    def _ping(self, tasks: list[TaskId], machine: str) -> Pong:
        self.pinged.append(tasks)
        if self.pong is None:
            raise PoolUnavailable(what="pool", why="away")
        return self.pong

    def _tasks(self, tasks: Sequence[TaskId]) -> list[ChainView]:
        if self.views is None:
            raise RpcUnavailable(what="node", why="away")
        return [self.views.get(task, ChainView(task)) for task in tasks]

    def put(self, stage: ReplicateStage, mode: Mode = Mode.VOTE, number: int = 1) -> TaskId:
        task = task_id(number)
        self.journal.add(assignment(number, mode=mode), self.clock)
        self.layout.task(task).make()
        if stage is not ReplicateStage.TAKEN:
            self.journal.mark_running(task, "container", self.clock)
        if stage in (ReplicateStage.COMPUTED, ReplicateStage.COMMITTED, ReplicateStage.REVEALED):
            self.journal.mark_computed(task, self.clock, digest=DIGEST, callback_data=None, cause=None, exit_code=0)
        if stage in (ReplicateStage.COMMITTED, ReplicateStage.REVEALED):
            self.journal.mark_committed(task, self.clock)
        if stage is ReplicateStage.REVEALED:
            self.journal.mark_revealed(task, self.clock)
        if stage is ReplicateStage.FAILED:
            self.journal.mark_failed(task, "cause", self.clock)
        if stage is ReplicateStage.ABORTED:
            self.journal.mark_aborted(task, self.clock)
        return task


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    layout = Layout(tmp_path / "worker")
    layout.make()
    journal = Journal(layout.journal)
    yield World(layout, journal)
    journal.close()


def view(task: TaskId, status: TaskStatus, vote: ContributionStatus = ContributionStatus.CONTRIBUTED) -> ChainView:
    own = Contribution(WORKER_KEY.wallet, VOTE, vote, BlockNumber(1))
    return ChainView(task, status, (own,), VOTE, Timestamp(9999))


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


def test_a_task_is_not_moved_on_twice_within_the_same_patience(world: World) -> None:
    world.put(ReplicateStage.TAKEN)
    world.clock += RESUME_SECONDS
    upkeep = world.upkeep
    upkeep.run_once()
    upkeep.run_once()
    assert len(world.sent) == 1


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
    monkeypatch.setattr(upkeep_process, "heads", lambda *_: [1])
    machine: Any = SimpleNamespace(settings=SimpleNamespace(ws_url=None, block_time=1.0))
    upkeep_process._follow_heads(machine, context.lane_wakeup, cast("Any", Mock()), threading.Event())
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
