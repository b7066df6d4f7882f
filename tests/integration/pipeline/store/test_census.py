"""Machines as the pool's operator counts and limits them, in the real database."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from chain.lane.model.intent import IntentState, LaneId
from chain.lane.store.mongo import MongoStore
from config.settings import read_settings
from ops.stack.stack import Stack
from pipeline.domain.machines.worker_state import WorkerState, state_of
from pipeline.domain.records import MOST_NEWCOMERS, ChainFacts, Outcome, Reservation, TaskRecord, WorkerRecord
from pipeline.domain.replicas import NEWCOMERS_DECIDE
from pipeline.flow.machines.new_pool import decided_by
from pipeline.store.client import Store
from pipeline.store.machine import census
from pipeline.store.machine.documents import WORKERS
from protocol.types import BlockNumber, NRlc, TaskId, Wallet, Wei
from protocol.wire import Capabilities
from tests.integration.conftest import given
from tests.integration.pipeline.rows import ALICE, BOB, NO_TAG, some_tasks
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


def test_machines_that_are_gone_are_counted_up_to_a_bound_and_all_others_one_by_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "MOST_GONE", 10)
    enrol(store, ALICE)
    (one,) = store.census.all_workers()
    machines = [any_machine(random.Random(number), number, one) for number in range(1, 400)]
    rows = store._db["workers"]
    rows.delete_many({})
    rows.insert_many([WORKERS.to_document(machine) for machine in machines])
    expected = Counter(state_of(machine, NOW, LOST_AFTER) for machine in machines)
    gone = Counter(state_of(machine, NOW, LOST_AFTER) for machine in machines if machine.lost)
    bounded = {state: gone[state] - 10 for state in (WorkerState.AWAY, WorkerState.LOST)}
    assert min(bounded.values()) > 0, "there are more than the bound of both"
    assert store.census.count_by_state(NOW, LOST_AFTER) == dict(expected - Counter(bounded))


class Asked(CommandListener):
    """Keeps each query as it was sent."""

    def __init__(self) -> None:
        self.queries: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in {"find", "aggregate", "count"}:
            # What belongs to the connection, not to the query.
            bare = {name: value for name, value in event.command.items() if name not in {"lsid", "txnNumber"}}
            self.queries.append({name: value for name, value in bare.items() if not name.startswith("$")})

    def succeeded(self, event: object) -> None:
        pass

    failed = succeeded


@pytest.fixture
def asked(stack: Stack) -> Iterator[tuple[Asked, MongoClient[dict[str, Any]]]]:
    """A connection of its own, and what is asked by it."""
    listener = Asked()
    uri = read_settings(**given(stack.settings)).mongodb_uri.get_secret_value()
    with MongoClient[dict[str, Any]](uri, tz_aware=True, event_listeners=[listener]) as connection:
        yield listener, connection


def rows_read(plan: object) -> int:
    """Rows that a query read, by its explanation."""
    if isinstance(plan, dict):
        if "totalDocsExamined" in plan:
            return int(plan["totalDocsExamined"])
        return sum(map(rows_read, plan.values()))
    return sum(map(rows_read, plan)) if isinstance(plan, list) else 0


@pytest.mark.parametrize("able", [True, False], ids=["a machine can work", "no machine can work"])
def test_no_query_of_status_or_metrics_reads_all_rows_of_wallets_that_ever_signed_in(
    store: Store, asked: tuple[Asked, MongoClient[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, able: bool
) -> None:
    monkeypatch.setattr(census, "MOST_GONE", 20)
    monkeypatch.setattr(census, "MACHINES_LIMIT", 20)
    enrol(store, ALICE)
    (one,) = store.census.all_workers()
    past = [
        replace(one, wallet=Wallet(f"0x{number:040x}"), lost=True, away=number % 2 == 0, seen_at=NOW - 600)
        for number in range(1, 1000)
    ]
    rows = store._db["workers"]
    rows.insert_many(WORKERS.to_document(each) for each in past)
    if not able:
        rows.update_one({"_id": ALICE}, {"$set": {"rest_until": NOW + 60}})
    some_tasks(store)
    MongoStore(store._db).ensure_indexes()
    listener, connection = asked
    db = connection[store._db.name]
    seen, lane = Store.of(db), LaneId(1, ALICE)
    transactions, unsent = MongoStore(db), (IntentState.QUEUED, IntentState.SENT)
    listener.queries.clear()
    seen.census.count_by_state(NOW, LOST_AFTER)
    assert bool(seen.census.machine_facts(NOW - LOST_AFTER, NOW).able) is able
    seen.lists.count_by_stage()
    seen.lists.count_finalized_since(BlockNumber(1))
    seen.deals.count_since(BlockNumber(1))
    seen.quarantine.counts()
    seen.pause.state()
    transactions.count(lane, unsent)
    transactions.in_state(lane, unsent, 1)
    queries = list(listener.queries)
    assert {query[next(iter(query))] for query in queries} >= {"workers", "tasks", "deals", "quarantine", "pool"}
    for query in queries:
        plan = store._db.command("explain", query, verbosity="executionStats")
        assert "COLLSCAN" not in json.dumps(plan, default=str), query
        assert rows_read(plan) <= 50, query


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
    assert store.workers.busy_proven(NOW, NOW) == []
    assert {task.newcomers for task in decided_by(store.workers, [low, high], NOW)} == {MOST_NEWCOMERS}
    assert store.census.limit_slots(ALICE, None)
    assert store.workers.any_proven(NOW), "with slots free"
    assert store.workers.busy_proven(NOW, NOW) == []


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
    assert store.census.machine_facts(NOW, NOW).able == 1
    store.census.limit_slots(ALICE, 0)
    found = store.census.machine_facts(NOW, NOW)
    assert (found.able, found.drained, found.banned) == (0, 1, 0)


def test_machines_that_did_nothing_are_forgotten_once_they_are_silent_and_nobody_else_is(store: Store) -> None:
    """Signing in is free: such rows would fill the disk."""
    offer = Capabilities(name="m", version="1", slots=1, cpus=1, memory_bytes=0, tag=NO_TAG)
    rows = store._db["workers"]

    def signed_in(number: int) -> Wallet:
        wallet = Wallet(f"0x{number:040x}")
        store.workers.enrol(wallet, offer, NOW - 100)
        store.workers.mark_without_queues(wallet, NOW)
        return wallet

    held = [{"task": TASKS[0], "since": NOW, "stake": "0"}]
    kept: list[dict[str, Any]] = [
        {"queues": True},
        {"seen_at": NOW},
        {"successes": 1},
        {"failures": 1},
        {"blamed": 1},
        {"solos": 1},
        {"banned": True},
        {"operator_slots": 0},
        {"held": held},
        {"pledged": held},
        {"replacing": True},
    ]
    stay = [signed_in(number) for number in range(1, len(kept) + 1)]
    for wallet, change in zip(stay, kept, strict=True):
        rows.update_one({"_id": wallet}, {"$set": change})
    for number in range(100, 103):
        signed_in(number)
    assert [store.census.forget_passers_by(NOW, 2) for _ in range(3)] == [2, 1, 0]
    assert [worker.wallet for worker in store.census.all_workers()] == stay
