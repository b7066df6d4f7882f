"""The journal against a model of it: any order of steps, repeated, with the file opened anew in between."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from protocol.errors import BadSetting
from protocol.types import Hash32, Signature
from protocol.wire import Mode, ResultLink
from tests.unit.workers.assignments import assignment, task_id
from workers.money import limits
from workers.task.journal import Journal
from workers.task.replicate import ALLOWED_BEFORE, Replicate, ReplicateStage, Todo, todo

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
        self.model: dict[int, ReplicateStage] = {}
        self.linked: set[int] = set()
        self.computed: set[int] = set()
        self.now = 0.0

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.folder.cleanup()

    def step(self, number: int, stage: ReplicateStage, done: bool) -> None:
        allowed = self.model.get(number) in ALLOWED_BEFORE[stage]
        # A vote is for a result.
        allowed = allowed and (stage is not ReplicateStage.COMMITTED or number in self.computed)
        assert done == allowed
        if allowed:
            self.model[number] = stage
            self.computed |= {number} if stage is ReplicateStage.COMPUTED else set()

    @rule(number=NUMBERS)
    def take(self, number: int) -> None:
        self.now += 1
        found = self.journal.add(assignment(number), self.now)
        self.model.setdefault(number, ReplicateStage.TAKEN)
        assert found.stage is self.model[number]

    @rule(number=NUMBERS)
    def run(self, number: int) -> None:
        self.step(number, ReplicateStage.RUNNING, self.journal.mark_running(task_id(number), "container", self.now))

    @rule(number=NUMBERS)
    def compute(self, number: int) -> None:
        done = self.journal.mark_computed(
            task_id(number), self.now, digest=DIGEST, callback_data=None, cause=None, exit_code=0
        )
        self.step(number, ReplicateStage.COMPUTED, done)

    @rule(number=NUMBERS)
    def commit(self, number: int) -> None:
        self.step(number, ReplicateStage.COMMITTED, self.journal.mark_committed(task_id(number), self.now))

    @rule(number=NUMBERS)
    def reveal(self, number: int) -> None:
        self.step(number, ReplicateStage.REVEALED, self.journal.mark_revealed(task_id(number), self.now))

    @rule(number=NUMBERS)
    def fail(self, number: int) -> None:
        self.step(number, ReplicateStage.FAILED, self.journal.mark_failed(task_id(number), "WHY", self.now))

    @rule(number=NUMBERS)
    def abort(self, number: int) -> None:
        self.step(number, ReplicateStage.ABORTED, self.journal.mark_aborted(task_id(number), self.now))

    @rule(number=NUMBERS)
    def upload(self, number: int) -> None:
        self.journal.mark_uploaded(task_id(number), LINK, self.now)
        if number in self.model:
            self.linked.add(number)

    @rule(number=NUMBERS)
    def forget(self, number: int) -> None:
        self.journal.forget([task_id(number)])
        self.model.pop(number, None)
        self.linked.discard(number)
        self.computed.discard(number)

    @rule()
    def die_and_come_back(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path)

    @invariant()
    def rows_are_as_modelled(self) -> None:
        if not hasattr(self, "journal"):
            return
        rows = {row.task_id: row for row in self.journal.all_replicates()}
        assert {key: row.stage for key, row in rows.items()} == {
            task_id(number): stage for number, stage in self.model.items()
        }
        assert {key for key, row in rows.items() if row.uploaded} == {task_id(number) for number in self.linked}
        for row in rows.values():
            if row.stage in (ReplicateStage.COMPUTED, ReplicateStage.COMMITTED, ReplicateStage.REVEALED):
                assert row.digest == DIGEST


JournalMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestJournal = JournalMachine.TestCase


def row(stage: ReplicateStage, mode: Mode = Mode.VOTE, link: ResultLink | None = None) -> Replicate:
    return Replicate(task_id(1), assignment(1, mode=mode), stage, DIGEST, link=link)


def test_a_machine_goes_on_by_itself_until_the_chain_is_due() -> None:
    assert todo(row(ReplicateStage.TAKEN)) is Todo.COMPUTE
    assert todo(row(ReplicateStage.RUNNING)) is Todo.COMPUTE
    assert todo(row(ReplicateStage.COMPUTED)) is Todo.CONTRIBUTE
    assert todo(row(ReplicateStage.COMPUTED, Mode.SOLO)) is Todo.UPLOAD
    assert todo(row(ReplicateStage.COMPUTED, Mode.SOLO, LINK)) is Todo.CONTRIBUTE_AND_FINALIZE
    for stage in (ReplicateStage.COMMITTED, ReplicateStage.REVEALED, ReplicateStage.FAILED, ReplicateStage.ABORTED):
        assert todo(row(stage)) is None


def test_no_message_aborts_a_task_that_was_voted_for() -> None:
    assert ALLOWED_BEFORE[ReplicateStage.ABORTED].isdisjoint({ReplicateStage.COMMITTED, ReplicateStage.REVEALED})


def test_only_replicates_that_cost_gas_or_lock_stake_count_against_a_later_task(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.db")) as journal, closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        kinds = [(mode, stage) for mode in Mode for stage in ReplicateStage]
        for number, (mode, stage) in enumerate(kinds, start=1):
            journal.add(assignment(number, mode=mode), 0.0)
            with db:
                db.execute("UPDATE replicates SET stage = ? WHERE task_id = ?", (stage, task_id(number)))
        for last in (task_id(len(kinds)), task_id(999)):
            before = [item for item in journal.all_replicates() if item.task_id != last]
            wanted = {item.task_id for item in before if limits.gas_to_come(item, {}) or limits.locks_stake(item)}
            assert {item.task_id for item in journal.costly_before(last)} == wanted


def test_a_journal_of_an_earlier_release_goes_on_and_takes_an_enclaves_signature(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    former = Journal(path)
    former.add(assignment(1), 1.0)
    former.close()
    with closing(sqlite3.connect(path)) as file:
        file.execute("ALTER TABLE replicates DROP COLUMN enclave_signature")
    signature = Signature("0x" + "5a" * 65)
    # Several processes of the machine open it at once; the second one finds the column.
    with closing(Journal(path)) as one, closing(Journal(path)) as other:
        assert one.mark_computed(
            task_id(1), 2.0, digest=DIGEST, callback_data=None, cause=None, exit_code=0, enclave_signature=signature
        )
        found = other.find(task_id(1))
    assert found is not None
    assert (found.stage, found.enclave_signature) == (ReplicateStage.COMPUTED, signature)


def test_a_journal_that_is_broken_is_named_with_what_to_do_while_votes_can_still_be_revealed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"\0" * 4096 + b"no database " * 1000)
    with pytest.raises(BadSetting, match=r"\.recover") as caught:
        Journal(path)
    assert str(path) in str(caught.value)
    # Nothing of it is lost by having been looked at.
    assert path.read_bytes().endswith(b"no database ")
