"""What each step of a task writes, in operations as MongoDB counts them: a pool pays each of them for every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from config.settings import read_settings
from ops.stack.stack import Stack
from pipeline.domain.records import Outcome, Replicate, TaskRecord
from pipeline.store.client import Store
from pipeline.store.task.tasks import NewReplicates
from protocol.types import Wallet
from protocol.wire import Mode, ResultLink, Step
from tests.integration.conftest import given
from tests.integration.pipeline.rows import ALICE, BOB, NO_TAG, NOW, enrol, held, prove, some_tasks

#: What an operation is called in a command that carries several.
_STATEMENTS = {"update": "updates", "insert": "documents", "delete": "deletes"}


class Counted(CommandListener):
    """Counts operations: of a command with several statements each."""

    def __init__(self) -> None:
        self.operations = 0

    def started(self, event: CommandStartedEvent) -> None:
        statements = _STATEMENTS.get(event.command_name)
        self.operations += 1 if statements is None else len(event.command[statements])

    def succeeded(self, event: object) -> None: ...

    failed = succeeded

    def of(self, step: Callable[[], object]) -> int:
        """How many a step takes."""
        before = self.operations
        step()
        return self.operations - before


@pytest.fixture
def counted(stack: Stack, emptied_database: str) -> Iterator[tuple[Store, Counted]]:
    """A store over a connection of its own, and what goes over it."""
    uri, counter = read_settings(**given(stack.settings)).mongodb_uri.get_secret_value(), Counted()
    with MongoClient[dict[str, Any]](uri, tz_aware=True, event_listeners=[counter]) as connection:
        store = Store.of(connection[emptied_database])
        store.ensure_indexes()
        yield store, counter


def assign_all(store: Store, tasks: list[TaskRecord], wallet: Wallet) -> None:
    """Have these tasks done by one machine alone."""
    alone = Replicate(wallet, Mode.SOLO, 1, NOW)
    store.tasks.assign([NewReplicates(task, (alone,), 0, 0, 0) for task in tasks], NOW, NOW)


def test_each_step_of_a_task_is_one_operation(counted: tuple[Store, Counted]) -> None:
    store, counter = counted
    tasks = some_tasks(store, 2)
    one, other = (task.task_id for task in tasks)
    assert counter.of(lambda: assign_all(store, tasks, ALICE)) == len(tasks)
    assert counter.of(lambda: store.tasks.record_report(one, ALICE, Step.COMPUTED, NOW, None, 0)) == 1
    assert counter.of(lambda: store.uploads.record_coming(other, ALICE, NOW)) == 1
    link = ResultLink(storage="ipfs", location="/ipfs/Qm")
    assert counter.of(lambda: store.tasks.record_upload(one, ALICE, link, NO_TAG, None, NOW)) == 1


def test_slots_are_taken_and_given_back_in_one_operation_for_each_machine(counted: tuple[Store, Counted]) -> None:
    store, counter = counted
    for wallet in (ALICE, BOB):
        enrol(store, wallet, slots=8)
        prove(store, wallet)
    slots = [(wallet, held(number).task_id) for wallet in (ALICE, BOB) for number in range(3)]
    taken = {wallet: [held(number) for number in range(3)] for wallet in (ALICE, BOB)}
    assert counter.of(lambda: store.workers.reserve_each(taken)) == 2
    assert counter.of(lambda: store.workers.pledge(slots[:5])) == 2
    held_now = {worker.wallet: len(worker.held) for worker in store.workers.load_workers([ALICE, BOB])}
    assert held_now == {ALICE: 0, BOB: 1}
    assert counter.of(lambda: store.workers.release(slots, Outcome.PAID, NOW)) == 2
    for worker in store.workers.load_workers([ALICE, BOB]):
        assert (worker.held, worker.pledged, worker.solos) == ((), (), 3), "each task was paid once"


def test_a_failure_counts_once_for_each_slot_that_was_still_taken(counted: tuple[Store, Counted]) -> None:
    store, _ = counted
    enrol(store, ALICE, slots=8)
    prove(store, ALICE)
    assert store.workers.reserve(ALICE, [held(1), held(2)])
    slots = [(ALICE, held(number).task_id) for number in (1, 2, 3)]
    store.workers.release(slots, Outcome.FAILED, NOW)
    store.workers.release(slots, Outcome.FAILED, NOW)
    (worker,) = store.workers.load_workers([ALICE])
    assert (worker.held, worker.failures) == ((), 2)
