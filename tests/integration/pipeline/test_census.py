"""Machines as the pool's operator counts and limits them, in the real database."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from pipeline.domain.records import MOST_NEWCOMERS, ChainFacts, Outcome, Reservation, TaskRecord, WorkerRecord
from pipeline.domain.replicas import NEWCOMERS_DECIDE
from pipeline.domain.worker_state import WorkerState, state_of
from pipeline.flow.new_pool import decided_by
from pipeline.store.client import Store
from pipeline.store.worker_documents import WORKERS
from protocol.types import NRlc, TaskId, Wallet, Wei
from protocol.wire import Capabilities
from tests.integration.pipeline.rows import ALICE, BOB, NO_TAG
from tests.unit.pipeline.builders import task

NOW, LOST_AFTER = 1_700_000_000.0, 60.0
TASKS = [TaskId(f"0x{number:064x}") for number in range(3)]


def enrol(store: Store, wallet: Wallet, slots: int = 4) -> None:
    offer = Capabilities(name="m", version="1", slots=slots, cpus=1, memory_bytes=0, tag=NO_TAG)
    store.workers.enrol(wallet, offer, NOW)
    store.workers.store_facts([(wallet, ChainFacts(2, NRlc(0), Wei(1), funded=True, score=30))], NOW)


def any_machine(random_: random.Random, number: int, one: WorkerRecord) -> WorkerRecord:
    yes = [True, False, False]
    return replace(
        one,
        wallet=Wallet(f"0x{number:040x}"),
        banned=random_.choice(yes),
        operator_slots=random_.choice([None, None, 0, 2]),
        away=random_.choice(yes),
        lost=random_.choice(yes),
        seen_at=NOW - random_.choice([0, 59, 60, 61, 600]),
        checked_at=random_.choice([0.0, NOW]),
        facts=replace(one.facts, funded=random_.choice([True, True, False])),
        rest_until=NOW + random_.choice([-1, -1, 0, 1]),
        held=(Reservation(TASKS[0], NOW, NRlc(0)),) * random_.choice([0, 1]),
    )


def test_the_database_counts_machines_by_the_rules_of_the_pure_function(store: Store) -> None:
    enrol(store, ALICE)
    (one,) = store.census.all_workers()
    machines = [any_machine(random.Random(number), number, one) for number in range(1, 400)]
    rows = store._db["workers"]
    rows.delete_many({})
    rows.insert_many([WORKERS.to_document(machine) for machine in machines])
    expected = Counter(state_of(machine, NOW, LOST_AFTER) for machine in machines)
    assert set(expected) == set(WorkerState), "every state is among them"
    assert store.census.count_by_state(NOW, LOST_AFTER) == dict(expected)
    rows.update_one({"_id": machines[0].wallet}, {"$set": {"held": "no such thing"}})
    assert sum(store.census.count_by_state(NOW, LOST_AFTER).values()) == len(machines), "one odd row stops nothing"


def test_a_drained_machine_is_given_nothing_keeps_what_it_has_and_comes_back(store: Store) -> None:
    enrol(store, ALICE)
    enrol(store, BOB)
    assert store.workers.reserve(ALICE, [Reservation(TASKS[0], NOW, NRlc(0))])
    assert store.census.limit_slots(ALICE, 0)
    assert [worker.wallet for worker in store.workers.with_free_slots(NOW, 10)] == [BOB]
    assert not store.workers.reserve(ALICE, [Reservation(TASKS[1], NOW, NRlc(0))]), "also for who read it before"
    assert store.workers.release([(ALICE, TASKS[0])], Outcome.PAID, NOW) == 1
    assert [worker.wallet for worker in store.workers.with_free_slots(NOW, 10)] == [BOB], "a success changes nothing"
    assert store.census.limit_slots(ALICE, 1)
    (limited,) = store.workers.load_workers([ALICE])
    assert (limited.free, limited.drained) == (1, False)
    assert not store.workers.reserve(ALICE, [Reservation(task, NOW, NRlc(0)) for task in TASKS[:2]])
    assert store.census.limit_slots(ALICE, None)
    assert store.workers.reserve(ALICE, [Reservation(task, NOW, NRlc(0)) for task in TASKS])


def test_no_task_waits_for_a_proven_machine_that_is_drained(store: Store) -> None:
    enrol(store, ALICE)
    assert store.census.limit_slots(ALICE, 1)
    assert store.workers.reserve(ALICE, [Reservation(TASKS[0], NOW, NRlc(0))])
    low, high = (waiting_for_proven(number, trust) for number, trust in enumerate((5, NEWCOMERS_DECIDE + 1)))
    assert decided_by(store.workers, [low, high], NOW) == [low, high], "busy, and there"
    assert store.census.limit_slots(ALICE, 0)
    assert not store.workers.any_proven(NOW)
    assert store.workers.busy_proven(NOW) == []
    assert {task.newcomers for task in decided_by(store.workers, [low, high], NOW)} == {MOST_NEWCOMERS}
    assert store.census.limit_slots(ALICE, None)
    assert store.workers.any_proven(NOW), "with slots free"
    assert store.workers.busy_proven(NOW) == []


def waiting_for_proven(number: int, trust: int) -> TaskRecord:
    return task(trust=trust, wants=1, newcomers=0, task_id=TASKS[number], worker_stake=NRlc(0))


def test_a_limit_outlives_a_new_sign_in(store: Store) -> None:
    enrol(store, ALICE)
    assert store.census.limit_slots(ALICE, 0)
    enrol(store, ALICE, slots=8)
    assert store.workers.with_free_slots(NOW, 10) == []
    assert not store.census.limit_slots(BOB, 0), "unknown"


def test_a_pool_whose_machines_are_all_drained_says_so(store: Store) -> None:
    enrol(store, ALICE)
    assert store.census.standing(NOW, NOW).able == 1
    store.census.limit_slots(ALICE, 0)
    found = store.census.standing(NOW, NOW)
    assert (found.able, found.drained, found.banned) == (0, 1, 0)
