"""A result that can never be stored: without a vote its task ends with a report, and a vote is revealed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.errors import BadMessage, NotSignedIn, Refused
from protocol.results.error_result import MACHINE_FAILED, cause_code
from protocol.types import Hash32, TaskId
from protocol.wire import Mode, Report, ResultLink, Step, Stored
from tests.unit.workers.upkeep_world import DIGEST, World
from workers.data.result_zip import ResultZip
from workers.task import steps, votes
from workers.task.replicate import ReplicateStage, todo


class Machine:
    """A machine with one result, which does its steps; the pool answers an upload as the test says."""

    def __init__(self, world: World) -> None:
        self.world, self.reports = world, list[Report]()
        self.answer: Exception | Stored = BadMessage(why="HTTP 400: it is not a zip", final=True)
        self.in_lane = list[Any]()
        self.context = world.context
        self.context.reports = SimpleNamespace(send=lambda _, report: self.reports.append(report))
        self.context.pool = SimpleNamespace(put_result=self.put)
        self.context.initializer = world.context.machine.wallet
        self.context.machine.settings.worker_ipfs_api = None
        self.context.lane.intents = lambda keys: [vote for vote in self.in_lane if vote.key in keys]

    def put(self, _: TaskId, path: Path, *__: object) -> Stored:
        path.stat()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def hold(self, stage: ReplicateStage, mode: Mode) -> TaskId:
        task = self.world.put(stage, mode)
        with ResultZip(self.zip(task)) as packed, packed.file("answer", 2) as write:
            write(b"42")
        return task

    def zip(self, task: TaskId) -> Path:
        return self.world.layout.task(task).zip

    def stage(self, task: TaskId) -> ReplicateStage:
        found = self.world.journal.find(task)
        assert found is not None
        return found.stage

    def is_given_up(self, task: TaskId) -> bool:
        """Whether the task has ended here, by one report, and nothing goes on with it."""
        found = self.world.journal.find(task)
        assert found is not None
        if found.stage is not ReplicateStage.FAILED:
            assert self.reports == []
            return False
        (report,) = self.reports
        assert (report.step, cause_code(report.cause or "")) == (Step.FAILED, MACHINE_FAILED)
        assert todo(found) is None
        return True


@pytest.fixture
def machine(world: World) -> Machine:
    return Machine(world)


def gone(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def spoilt(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x00\x00answer", b"\x00\x00answe?", 1))


def whole(_: Path) -> None:
    pass


@pytest.mark.parametrize("lose", [gone, cut, spoilt], ids=lambda lose: lose.__name__)
@pytest.mark.parametrize("answer", [Refused(why="no"), BadMessage(why="a proxy's page")], ids=["refused", "unclear"])
def test_a_solo_result_that_is_lost_or_spoilt_ends_its_task_with_a_report(
    machine: Machine, lose: Callable[[Path], None], answer: Exception
) -> None:
    task = machine.hold(ReplicateStage.COMPUTED, Mode.SOLO)
    lose(machine.zip(task))
    machine.answer = answer
    assert not steps.upload(machine.context, task)
    assert machine.is_given_up(task)


@pytest.mark.parametrize(
    ("answer", "given_up"),
    [
        (BadMessage(why="HTTP 400: it is not a zip", final=True), True),
        (Stored(link=ResultLink(storage="ipfs", location="/ipfs/Qm"), digest=Hash32("0x" + "99" * 32)), True),
        # What may be another's word, or pass.
        (BadMessage(why="HTTP 418: <html>", final=False), False),
        (Refused(why="this wallet's attempt at the task is over: lost"), False),
        (NotSignedIn(why="no token"), False),
    ],
    ids=["broken", "another result", "a proxy", "refused", "not signed in"],
)
def test_a_whole_solo_result_is_given_up_only_on_the_pools_final_word(
    machine: Machine, answer: Exception | Stored, given_up: bool
) -> None:
    task = machine.hold(ReplicateStage.COMPUTED, Mode.SOLO)
    machine.answer = answer
    assert not steps.upload(machine.context, task)
    assert machine.is_given_up(task) is given_up


def test_a_machine_short_of_open_files_gives_no_result_up(machine: Machine) -> None:
    task = machine.hold(ReplicateStage.COMPUTED, Mode.SOLO)
    machine.answer = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(OSError, match="Too many"):
        steps.upload(machine.context, task)
    assert not machine.is_given_up(task)


@pytest.mark.parametrize("stage", [ReplicateStage.COMMITTED, ReplicateStage.REVEALED])
@pytest.mark.parametrize("lose", [gone, cut, whole], ids=lambda lose: lose.__name__)
def test_a_vote_whose_result_is_lost_is_revealed_all_the_same(
    machine: Machine, lose: Callable[[Path], None], stage: ReplicateStage
) -> None:
    task = machine.hold(stage, Mode.VOTE)
    lose(machine.zip(task))
    assert not steps.upload(machine.context, task)
    assert not machine.is_given_up(task)
    assert steps.reveal(machine.context, task)
    assert machine.world.sent == [(votes.REVEAL, task)]


def test_nothing_is_voted_for_that_is_not_on_disk_any_more(machine: Machine) -> None:
    task = machine.hold(ReplicateStage.COMPUTED, Mode.VOTE)
    gone(machine.zip(task))
    assert not steps.contribute(machine.context, task)
    assert machine.world.sent == []
    assert machine.is_given_up(task)


def test_a_vote_that_the_lane_has_already_goes_on_without_its_result(machine: Machine) -> None:
    """Killed between handing the vote to the lane and noting that; then the result is lost."""
    task = machine.hold(ReplicateStage.COMPUTED, Mode.VOTE)
    gone(machine.zip(task))
    replicate = machine.world.journal.find(task)
    assert replicate is not None
    context = machine.context
    machine.in_lane = [votes.contribute(replicate, context.chain_id, 1.0, context.initializer)]
    assert steps.contribute(context, task)
    assert machine.stage(task) is ReplicateStage.COMMITTED
    assert not machine.reports
    assert replicate.digest == DIGEST
