"""The journal against a model of it: any order of steps, repeated, with the file opened anew in between."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from protocol.types import Hash32
from protocol.wire import Mode, ResultLink
from tests.unit.workers.assignments import assignment, task_id
from workers.task.journal import Journal
from workers.task.replicate import MAY_FOLLOW, Replicate, Stage, Todo, todo

DIGEST = Hash32("0x" + "ab" * 32)
LINK = ResultLink(storage="ipfs", location="/ipfs/Qm")
NUMBERS = st.integers(1, 3)


class JournalMachine(RuleBasedStateMachine):
    """Three tasks, every step at any time."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.db"
        self.journal = Journal(self.path)
        self.model: dict[int, Stage] = {}
        self.linked: set[int] = set()
        self.now = 0.0

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.folder.cleanup()

    def step(self, number: int, stage: Stage, done: bool) -> None:
        allowed = self.model.get(number) in MAY_FOLLOW[stage]
        assert done == allowed
        if allowed:
            self.model[number] = stage

    @rule(number=NUMBERS)
    def take(self, number: int) -> None:
        self.now += 1
        found = self.journal.take(assignment(number), self.now)
        self.model.setdefault(number, Stage.TAKEN)
        assert found.stage is self.model[number]

    @rule(number=NUMBERS)
    def run(self, number: int) -> None:
        self.step(number, Stage.RUNNING, self.journal.running(task_id(number), "container", self.now))

    @rule(number=NUMBERS)
    def compute(self, number: int) -> None:
        done = self.journal.computed(
            task_id(number), self.now, digest=DIGEST, callback_data=None, cause=None, exit_code=0
        )
        self.step(number, Stage.COMPUTED, done)

    @rule(number=NUMBERS)
    def commit(self, number: int) -> None:
        self.step(number, Stage.COMMITTED, self.journal.committed(task_id(number), self.now))

    @rule(number=NUMBERS)
    def reveal(self, number: int) -> None:
        self.step(number, Stage.REVEALED, self.journal.revealed(task_id(number), self.now))

    @rule(number=NUMBERS)
    def fail(self, number: int) -> None:
        self.step(number, Stage.FAILED, self.journal.failed(task_id(number), "WHY", self.now))

    @rule(number=NUMBERS)
    def abort(self, number: int) -> None:
        self.step(number, Stage.ABORTED, self.journal.aborted(task_id(number), self.now))

    @rule(number=NUMBERS)
    def upload(self, number: int) -> None:
        self.journal.uploaded(task_id(number), LINK, self.now)
        if number in self.model:
            self.linked.add(number)

    @rule(number=NUMBERS)
    def forget(self, number: int) -> None:
        self.journal.forget([task_id(number)])
        self.model.pop(number, None)
        self.linked.discard(number)

    @rule()
    def die_and_come_back(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path)

    @invariant()
    def rows_are_as_modelled(self) -> None:
        if not hasattr(self, "journal"):
            return
        rows = {row.task_id: row for row in self.journal.all()}
        assert {key: row.stage for key, row in rows.items()} == {
            task_id(number): stage for number, stage in self.model.items()
        }
        assert {key for key, row in rows.items() if row.uploaded} == {task_id(number) for number in self.linked}
        for row in rows.values():
            if row.stage in (Stage.COMPUTED, Stage.COMMITTED, Stage.REVEALED):
                assert row.digest == DIGEST


JournalMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestJournal = JournalMachine.TestCase


def row(stage: Stage, mode: Mode = Mode.VOTE, link: ResultLink | None = None) -> Replicate:
    return Replicate(task_id(1), assignment(1, mode=mode), stage, DIGEST, link=link)


def test_a_machine_goes_on_by_itself_until_the_chain_is_due() -> None:
    assert todo(row(Stage.TAKEN)) is Todo.COMPUTE
    assert todo(row(Stage.RUNNING)) is Todo.COMPUTE
    assert todo(row(Stage.COMPUTED)) is Todo.CONTRIBUTE
    assert todo(row(Stage.COMPUTED, Mode.SOLO)) is Todo.UPLOAD
    assert todo(row(Stage.COMPUTED, Mode.SOLO, LINK)) is Todo.CONTRIBUTE_AND_FINALIZE
    for stage in (Stage.COMMITTED, Stage.REVEALED, Stage.FAILED, Stage.ABORTED):
        assert todo(row(stage)) is None


def test_no_message_aborts_a_task_that_was_voted_for() -> None:
    assert MAY_FOLLOW[Stage.ABORTED].isdisjoint({Stage.COMMITTED, Stage.REVEALED})
