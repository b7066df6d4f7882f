"""The steps behind an assignment: each once, in their order, whatever moment the process is killed at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore

from chain.lane.model.intent import IntentState
from chain.lane.rules.poco import poco_lane
from chain.lane.run import RunReport
from chain.lane.store.port import IntentMove
from chain.lane.store.sqlite import SqliteStore
from config.settings import read_settings
from protocol.errors import PoolUnavailable
from protocol.types import ZERO_ADDRESS, Hash32, TaskId
from protocol.wire import Mode, ResultLink, Step, Stored
from tests.unit.workers.assignments import SCHEDULER_KEY, WORKER_KEY, assignment, task_id
from workers import tasks
from workers.data.layout import Layout
from workers.task import chain, steps
from workers.task.journal import Journal
from workers.task.replicate import COMPUTING, WITH_RESULT, ReplicateStage

DIGEST = Hash32("0x" + "ab" * 32)
LINK = ResultLink(storage="ipfs", location="/ipfs/Qm")
TASK = task_id(1)
UNENDED = (IntentState.QUEUED,)


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Machine:
    """A machine's files, real, and what its process does with them; it can be killed before or behind each act."""

    folder: Path
    acts: list[str] = field(default_factory=list)
    #: Number of the moment at which the process is killed: two for each act, before and behind it.
    kill_at: int | None = None
    pool_away: bool = False
    _moments: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.layout = Layout(self.folder / "worker")
        self.layout.make()
        self.store = SqliteStore(self.layout.lane)
        node: Any = SimpleNamespace(name="a node that is not asked")
        self.lane = poco_lane(read_settings(hub=ZERO_ADDRESS), node, WORKER_KEY, self.store)
        self.journal = Journal(self.layout.journal)

    def act(self, name: str, do: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*args: Any, **kwargs: Any) -> Any:
            self._moment()
            done = do(*args, **kwargs)
            self.acts.append(name)
            self._moment()
            return done

        return acted

    def _moment(self) -> None:
        if next(self._moments) == self.kill_at:
            raise Killed

    @property
    def context(self) -> Any:
        journal = SimpleNamespace(
            find=self.journal.find,
            mark_committed=self.act("journal", self.journal.mark_committed),
            mark_uploaded=self.act("journal", self.journal.mark_uploaded),
        )
        return SimpleNamespace(
            layout=self.layout,
            journal=journal,
            now=lambda: 1000.0,
            chain_id=self.lane.id.chain_id,
            initializer=SCHEDULER_KEY.wallet,
            lane=SimpleNamespace(submit=self.act("lane", self.lane.submit), intents=self.lane.intents),
            lane_wakeup=SimpleNamespace(notify=self.act("wake", lambda: None)),
            pool=SimpleNamespace(put_result=self.act("upload", self._put)),
            reports=SimpleNamespace(send=self.act("report", lambda *_: None)),
        )

    def _put(self, *_: object) -> Stored:
        if self.pool_away:
            raise PoolUnavailable(what="pool", why="away")
        return Stored(link=LINK, digest=DIGEST)

    def compute(self, _: object, wanted: Any, *, redelivered: bool = False) -> bool:
        """Stands in for the container: its own crashes are tried with real ones (tests/integration/workers)."""
        replicate = self.journal.add(wanted, 1000.0)
        if replicate.stage in COMPUTING:
            self.journal.mark_running(TASK, "container", 1000.0)
            self.layout.task(TASK).make()
            self.layout.task(TASK).zip.touch()
            self.journal.mark_computed(TASK, 1000.0, digest=DIGEST, callback_data=None, cause=None, exit_code=0)
        found = self.journal.find(TASK)
        return found is not None and found.stage in WITH_RESULT

    def deliver(self, mode: Mode) -> None:
        """The assignment's message, for the first time or again."""
        chain.do_assignment(self.context, assignment(1, mode=mode))

    def submitted(self) -> list[str]:
        return [intent.method for intent in self.store.in_state(self.lane.id, UNENDED, 10)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(chain, "compute", made.compute)
    return made


METHODS = {Mode.VOTE: "contribute", Mode.SOLO: "contributeAndFinalize"}


@pytest.mark.parametrize(
    ("mode", "acts"),
    [
        (Mode.VOTE, ["lane", "journal", "wake", "wake"]),
        (Mode.SOLO, ["upload", "journal", "lane", "journal", "wake", "wake"]),
    ],
)
def test_an_assignment_is_done_to_its_vote_without_another_message(
    machine: Machine, mode: Mode, acts: list[str]
) -> None:
    machine.deliver(mode)
    assert machine.acts == acts
    assert machine.submitted() == [METHODS[mode]]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("moment", range(14))
def test_a_machine_killed_at_any_moment_votes_once_when_its_message_comes_again(
    machine: Machine, mode: Mode, moment: int
) -> None:
    machine.kill_at = moment
    try:
        machine.deliver(mode)
    except Killed:
        machine.acts.clear()
        machine.deliver(mode)
    assert machine.submitted() == [METHODS[mode]]
    assert machine.acts[-1] == "wake", "or the vote would wait for the next block"
    found = machine.journal.find(TASK)
    assert found is not None
    assert found.stage is ReplicateStage.COMMITTED


def test_a_message_that_comes_again_changes_nothing(machine: Machine) -> None:
    machine.deliver(Mode.SOLO)
    machine.acts.clear()
    machine.deliver(Mode.SOLO)
    assert machine.acts == ["wake"]
    assert machine.submitted() == ["contributeAndFinalize"]


def test_a_result_that_cannot_be_stored_is_not_finalized_and_goes_on_when_the_pool_is_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "UPLOAD_TIMEOUT", 0.0)
    machine.pool_away = True
    with pytest.raises(PoolUnavailable):
        machine.deliver(Mode.SOLO)
    assert machine.submitted() == []
    machine.pool_away = False
    machine.deliver(Mode.SOLO)
    assert machine.submitted() == ["contributeAndFinalize"]


def test_a_vote_needs_no_answer_of_the_pool(machine: Machine) -> None:
    machine.pool_away = True
    machine.deliver(Mode.VOTE)
    assert machine.submitted() == ["contribute"]


def test_an_aborted_task_is_not_voted_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def aborted(context: Any, wanted: Any, *, redelivered: bool) -> bool:
        ready = machine.compute(context, wanted)
        machine.journal.mark_aborted(TaskId(wanted.task_id), 1001.0)
        return ready

    monkeypatch.setattr(chain, "compute", aborted)
    machine.deliver(Mode.VOTE)
    assert machine.submitted() == []


@pytest.mark.parametrize(("mode", "method"), [(Mode.VOTE, "contribute"), (Mode.SOLO, "contributeAndFinalize")])
def test_what_was_sent_is_not_reported_since_the_chain_tells(machine: Machine, mode: Mode, method: str) -> None:
    sent: list[Any] = []
    machine.context.reports = SimpleNamespace(send=lambda _, report: sent.append(report.step))
    machine.deliver(mode)
    assert machine.submitted() == [method]
    assert sent == []


@pytest.mark.parametrize("setting", [{}, {"state": "pending"}, {"state": "pending", "spend_depth": 1}])
def test_a_reveal_is_reported_once_sent_only_where_steps_may_share_a_block(
    machine: Machine, setting: dict[str, Any]
) -> None:
    machine.deliver(Mode.VOTE)
    reported: list[Step] = []
    context = machine.context
    context.journal.mark_revealed = machine.journal.mark_revealed
    context.ledger = SimpleNamespace(worth=lambda _: 0)
    context.machine = SimpleNamespace(settings=read_settings(**setting))
    context.reports = SimpleNamespace(send=lambda _, report: reported.append(report.step))
    early = setting == {"state": "pending"}
    assert steps.reveal(context, TASK)
    assert reported == []
    (asked,) = [each for each in machine.store.in_state(machine.lane.id, UNENDED, 10) if each.method == "reveal"]
    context.lane.run = lambda **_: RunReport(sent=(asked, replace(asked, generation=1)))
    steps.run_lane(context)
    assert reported == ([Step.REVEALED] if early else [])


@pytest.mark.parametrize("redelivered", [False, True])
def test_a_message_says_whether_the_broker_had_delivered_it_before(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, redelivered: bool
) -> None:
    heard: list[bool] = []

    def compute(*_: object, redelivered: bool) -> bool:
        heard.append(redelivered)
        return False

    monkeypatch.setattr(chain, "compute", compute)
    monkeypatch.setattr(tasks.MachineTask, "context", machine.context)
    tasks.run_compute.push_request(delivery_info={"redelivered": redelivered})
    with pytest.raises(Ignore):
        tasks.run_compute.run(assignment(1).model_dump(mode="json"))
    assert heard == [redelivered]


def revealing(machine: Machine) -> Any:
    """The context of a process that reveals."""
    context = machine.context
    context.journal.mark_revealed = machine.journal.mark_revealed
    context.ledger = SimpleNamespace(worth=lambda _: 0)
    return context


def test_a_vote_that_is_in_the_lane_when_the_task_is_aborted_counts_as_sent_and_is_revealed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may happen at once, in two processes: the lane sends it all the same."""
    submit = machine.lane.submit

    def aborted_meanwhile(intents: Any) -> Any:
        taken = submit(intents)
        assert machine.journal.mark_aborted(TASK, 1001.0)
        return taken

    with monkeypatch.context() as patched:
        patched.setattr(machine.lane, "submit", aborted_meanwhile)
        machine.deliver(Mode.VOTE)
    found = machine.journal.find(TASK)
    assert found is not None
    assert found.stage is ReplicateStage.COMMITTED
    assert steps.reveal(revealing(machine), TASK)
    assert machine.submitted() == ["contribute", "reveal"]


def test_a_reveal_that_the_lane_has_given_up_is_submitted_anew_a_few_times(machine: Machine) -> None:
    machine.deliver(Mode.VOTE)
    context, lane = revealing(machine), machine.lane.id
    lease = machine.store.take_lease(lane, "here", 60.0)
    assert lease is not None
    submitted = 0
    for _ in range(steps.MOST_REVEALS + 2):
        assert steps.reveal(context, TASK)
        queued = [intent.key for intent in machine.store.queued(lane, 10) if intent.method == "reveal"]
        submitted += len(queued)
        machine.store.move(lease, [IntentMove(tuple(queued), IntentState.FAILED, reason="a branch that is gone")], ())
    # The first, and one more for each that was given up.
    assert submitted == 1 + steps.MOST_REVEALS
