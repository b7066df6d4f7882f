"""Whom and what the store finds first: machines for work, tasks that are due, small deals behind large ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pipeline.domain.due import Turn
from pipeline.domain.outcomes import Trouble
from pipeline.domain.records import (
    ChainFacts,
    Outcome,
)
from pipeline.flow.ingest import task_records
from pipeline.store.client import Store
from pipeline.store.deals import LEASE_SECONDS
from protocol.poco.events import Seen, TaskInitialize
from protocol.poco.tags import GPU_BIT, make_tag
from protocol.types import (
    BlockHash,
    BlockNumber,
    DealId,
    NRlc,
    Timestamp,
    TxHash,
    Wallet,
    Wei,
)
from protocol.wire import Capabilities, Step
from tests.integration.pipeline.rows import (
    ALICE,
    NO_TAG,
    NOW,
    POOL,
    deal,
    enrol,
    held,
    many,
    prove,
    some_tasks,
)
from tests.integration.pipeline.sharded.shards import ONE_SERVER


def test_the_best_workers_are_looked_at_not_the_first(store: Store) -> None:
    strangers = many(store, 1, 30, ChainFacts(2, NRlc(0), Wei(1), funded=True))
    staked = many(store, 100, 2, ChainFacts(2, NRlc(2**70), Wei(1), funded=True))
    proven = many(store, 200, 2, ChainFacts(2, NRlc(0), Wei(1), funded=True, score=4))
    unfunded = many(store, 300, 5, ChainFacts(9, NRlc(9), Wei(0), funded=False))
    many(store, 400, 5, None)
    best = [worker.wallet for worker in store.workers.with_free_slots(0.0, 8)]
    assert set(best[:2]) == set(proven)
    assert set(best[2:4]) == set(staked)
    assert set(best[4:]) < set(strangers)
    assert not set(unfunded) & {worker.wallet for worker in store.workers.with_free_slots(0.0, 1000)}


def test_workers_with_the_stake_or_the_tag_are_found_behind_better_ones_without(store: Store) -> None:
    gpu = make_tag(GPU_BIT)
    many(store, 1, 30, ChainFacts(2, NRlc(0), Wei(1), funded=True, score=9))
    (rich,) = many(store, 100, 1, ChainFacts(2, NRlc(2**70), Wei(1), funded=True))
    store.workers.enrol(
        ALICE, Capabilities(name="g", version="1", slots=1, cpus=1, memory_bytes=0, tag=make_tag(GPU_BIT, 2)), NOW
    )
    prove(store, ALICE, score=0, stake=0)
    assert [worker.wallet for worker in store.workers.with_free_slots(0.0, 5, stake=NRlc(2**70))] == [rich]
    assert [worker.wallet for worker in store.workers.with_free_slots(0.0, 5, tag=gpu)] == [ALICE]
    assert len(store.workers.with_free_slots(0.0, 100, tag=NO_TAG)) == 32


def test_wallets_without_native_token_are_looked_at_again_in_turn(store: Store) -> None:
    poor = ChainFacts(2, NRlc(0), Wei(0), funded=False)
    wallets = many(store, 1, 5, None)
    first = store.workers.wallets_to_check(NOW, 3)
    assert first == wallets[:3]
    store.workers.store_facts([(wallet, poor) for wallet in first], NOW)
    assert store.workers.wallets_to_check(NOW, 10) == wallets[3:]
    assert set(store.workers.wallets_to_check(NOW + 10, 10)) == set(wallets)
    store.workers.store_facts([(wallet, poor) for wallet in wallets], NOW + 60)
    assert store.workers.wallets_to_check(NOW + 119, 10) == []
    enrol(store, wallets[0])
    assert store.workers.wallets_to_check(NOW + 60, 10) == [wallets[0]], "it signed in anew"


def test_the_store_counts_free_slots_as_the_record_does(store: Store) -> None:
    for number, (slots, score, weight, held_now) in enumerate(
        [(1, 0, 2, 0), (8, 0, 2, 1), (8, 1, 2, 0), (64, 0, 5, 2), (3, 50, 9, 3), (8, 3, 2, 8)]
    ):
        wallet = Wallet(f"0x{number:040x}")
        enrol(store, wallet, slots=slots)
        store.workers.store_facts([(wallet, ChainFacts(weight, NRlc(1), Wei(1), funded=True, score=score))], NOW)
        for task in range(held_now):
            assert store.workers.reserve(wallet, [held(task)])
        (row,) = store.workers._rows.find({"_id": wallet})
        (record,) = store.workers.load_workers([wallet])
        assert (row["free"], row["successes"]) == (record.free, record.successes)


def test_a_task_done_alone_and_paid_earns_slots_and_blame_does_not_rest_a_machine(store: Store) -> None:
    enrol(store, ALICE, slots=8)
    prove(store, ALICE, score=0)
    for number in range(10):
        assert store.workers.reserve(ALICE, [held(number)])
        store.workers.release([(ALICE, held(number).task_id)], Outcome.BLAMED, NOW)
    (worker,) = store.workers.with_free_slots(0.0, 10, NOW)
    assert (worker.failures, worker.blamed, worker.free) == (0, 10, 2)
    assert store.workers.reserve(ALICE, [held(1)])
    store.workers.release([(ALICE, held(1).task_id)], Outcome.PAID, NOW)
    (worker,) = store.workers.with_free_slots(0.0, 10, NOW)
    assert (worker.solos, worker.blamed, worker.free) == (1, 0, 4)


def test_slots_taken_long_ago_are_found_page_by_page(store: Store) -> None:
    wallets = many(store, 1, 7, ChainFacts(2, NRlc(100), Wei(1), funded=True))
    for wallet in wallets:
        store.workers.reserve(wallet, [held(1)])
    found: list[Wallet] = []
    while page := store.workers.holding_since(NOW + 1, 3, found[-1] if found else None):
        found += [worker.wallet for worker in page]
    assert found == wallets


def test_a_small_deal_behind_a_bag_gets_its_share_of_the_initializes(store: Store) -> None:
    bag, small = deal(40), replace(deal(3), deal_id=DealId("0x" + "ff" * 32))
    store.tasks.insert_new([*task_records(bag), *task_records(small)])
    for after in ("", bag.deal_id, small.deal_id):
        found = store.tasks.uninitialized(1000.0, 10, after)
        assert len(found) in (8, 10)
        assert {task.task_id for task in task_records(small)} <= set(found)


@pytest.mark.parametrize(("now", "turn"), [(1000.0, Turn.EARLY), (float(10**10), Turn.EXPIRED)])
def test_a_due_task_is_found_behind_a_bag_whose_tasks_are_all_due_for_longer(
    store: Store, now: float, turn: Turn
) -> None:
    bag, small = deal(40), replace(deal(1), deal_id=DealId("0x" + "ff" * 32))
    (behind,) = task_records(small)
    store.tasks.insert_new(
        [*(replace(task, next_visit=0.0) for task in task_records(bag)), replace(behind, next_visit=5.0)]
    )
    found = {task.task_id: task for task in store.tasks.tasks_due(now, 10)}
    assert found[behind.task_id].turn(now) is turn
    assert len(found) <= 3 * 2 * 10


def test_a_bag_is_stored_by_one_process_at_a_time_and_goes_on_where_another_left_off(store: Store) -> None:
    bag = deal(30)
    store.deals.noticed([(bag.deal_id, bag.matched_block, BlockHash("0x" + "b1" * 32))])
    store.deals.store_for_later(bag)
    with ThreadPoolExecutor(8) as threads:
        leases = [lease for lease in threads.map(lambda _: store.deals.lease_next(NOW), range(8)) if lease]
    (lease,) = leases
    assert store.deals.progress(lease, 10, NOW + LEASE_SECONDS, again=False)
    assert store.deals.lease_next(NOW) is None
    later = store.deals.lease_next(NOW + LEASE_SECONDS + 1)
    assert later is not None
    assert (later.deal, later.stored) == (bag, 10)
    assert not store.deals.progress(lease, 20, NOW, again=False), "its lease was taken over"
    assert not store.deals.mark_ingested(lease)
    assert store.deals.mark_ingested(later)


@ONE_SERVER
def test_what_each_wake_up_ping_and_report_asks_is_found_by_an_index(store: Store) -> None:
    tasks = some_tasks(store, 40)
    enrol(store, ALICE)
    block = BlockHash("0x" + "0b" * 32)
    store.chain.logs.put(
        [
            Seen(TaskInitialize(task.task_id, POOL), BlockNumber(1), block, Timestamp(1), TxHash("0x" + "0c" * 32), at)
            for at, task in enumerate(tasks)
        ]
    )
    store._db.command("profile", 2)
    ((_, logs),) = store.tasks.load_with_logs([tasks[7].task_id])
    assert len(logs) == 1
    assert len(store.tasks.tasks_due(NOW, 100)) == 40
    assert store.workers.token_terms(ALICE) == (False, 0.0)
    assert store.workers.mark_seen(ALICE, NOW, "a machine") == "$name"
    assert store.tasks.record_report(tasks[7].task_id, ALICE, Step.STARTED, NOW, None, None) is None
    assert store.sweeps.outages(NOW, 0.0) == Trouble(0.0, 0.0)
    store._db.command("profile", 0)
    asked = list(
        store._db["system.profile"].find({"ns": {"$not": {"$regex": "system"}}, "planSummary": {"$exists": 1}})
    )
    store._db["system.profile"].drop()
    assert len(asked) == 6
    for row in asked:
        assert "COLLSCAN" not in row["planSummary"], row["command"]
        assert row.get("docsExamined", 0) <= max(2, row.get("nreturned", 0)), row["command"]
