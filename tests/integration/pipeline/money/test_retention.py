"""Records of deals that are long over are deleted in pieces, whatever is killed; the ledger's sums stay as they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from chain.lane.model.intent import Intent, IntentState, LaneId
from chain.lane.model.nonce import Attempt, Fees, Mined, NonceRecord, NonceState, Purpose
from chain.lane.store.documents import intent_document, record_document
from chain.lane.store.mongo import MongoStore
from chain.lane.store.port import IntentMove
from pipeline.domain.money.ledger import Books, Mark
from pipeline.domain.money.statement import By, Line, statement
from pipeline.domain.records import ComputeLog, TaskStage
from pipeline.flow.cleanup import retention
from pipeline.flow.cleanup.retention import DAY, Removed, Retention
from pipeline.flow.ingest import task_records
from pipeline.store.client import Store
from pipeline.store.deals import Lease
from pipeline.store.money.gas import GasBook
from pipeline.store.money.ledger import BlocksRead, Movements
from protocol.poco.events import Event, SchedulerNotice, Seen, TaskInitialize
from protocol.poco.money import EVEN, Balances, Kind
from protocol.types import BlockHash, BlockNumber, Contract, DealId, Nonce, TaskId, Timestamp, TxHash, Wei
from tests.integration.pipeline.rows import ALICE, NOW, POOL, deal
from tests.unit.pipeline.money.test_ledger import ME, OTHER, movement
from tests.waiting import ample

LANE = LaneId(1, ME)
HUB = Contract("0x" + "4b" * 20)
#: A year after the past deals' final deadline.
BEFORE = 400 * DAY


def put_deal(store: Store, number: int, final: float, *, size: int = 3, is_open: bool = False) -> list[TaskId]:
    """A deal with its tasks, and all that is stored of them; `final`: its final deadline."""
    deal_id = DealId(f"0x{number:064x}")
    found = replace(
        deal(size, block=number),
        deal_id=deal_id,
        start_time=Timestamp(int(final) - 10),
        final_deadline=Timestamp(int(final)),
    )
    block_hash = BlockHash(f"0x{number:064x}")
    store.deals.noticed([(deal_id, found.matched_block, block_hash)])
    lease = store.deals.lease_and_store(found, NOW)
    assert isinstance(lease, Lease)
    tasks = task_records(found)
    ended = [replace(task, open=is_open and not task.index, stage=TaskStage.COMPLETED, version=1) for task in tasks]
    store.tasks.insert_new(ended)
    assert store.deals.mark_ingested(lease)
    events: list[Event] = [SchedulerNotice(POOL, deal_id), *(TaskInitialize(task.task_id, POOL) for task in tasks)]
    where = (found.matched_block, block_hash, Timestamp(int(final) - 10), TxHash(block_hash))
    store.chain.logs.put([Seen(event, *where, index) for index, event in enumerate(events)])
    for task in tasks:
        store.outputs.put(ComputeLog(task.task_id, ALICE, "out", ""), NOW)
        made = [Intent.new(1, ME, "finalize", task.task_id, occasion=again) for again in (0, 2)]
        store._db["intents"].insert_many([intent_document(replace(each, state=IntentState.FINAL)) for each in made])
    return [task.task_id for task in tasks]


def put_nonce(store: Store, number: int, at: float, *keys: str, success: bool = True, value: int = 0) -> None:
    """A final transaction of the lane."""
    tx = TxHash(f"0x{number:064x}")
    attempt = Attempt(tx, "0x", Fees(Wei(1), Wei(1)), Purpose.CALL if keys else Purpose.YIELD)
    mined = Mined(tx, BlockNumber(number), BlockHash(tx), success, Wei(10**20 + number), 21_000)
    record = NonceRecord(
        lane=LANE,
        nonce=Nonce(number),
        intents=keys,
        to=HUB,
        data="0x",
        gas=1,
        value=Wei(value),
        attempts=(attempt,),
        created_at=at,
        state=NonceState.FINAL,
        mined=mined,
    )
    store._db["nonces"].insert_one(record_document(record))


def left(store: Store, name: str) -> int:
    return store._db[name].count_documents({"_id": {"$gt": ""}})


@pytest.fixture
def kept(store: Store) -> Retention:
    movements = Movements(store._db, 1, HUB, ME)
    return Retention(store, LANE, movements, GasBook(store._db, LANE), BEFORE)


def test_deals_long_over_go_with_all_their_records_and_others_stay(store: Store, kept: Retention) -> None:
    put_deal(store, 1, BEFORE - 5)
    put_deal(store, 2, BEFORE - 4, is_open=True)
    put_deal(store, 3, BEFORE - 3)
    young = put_deal(store, 4, BEFORE + 3)
    assert kept.run(60.0) == Removed(deals=2, tasks=6)
    assert {name: left(store, name) for name in ("deals", "tasks", "logs", "intents", "outputs")} == {
        "deals": 2,
        "tasks": 6,
        "logs": 8,
        "intents": 12,
        "outputs": 6,
    }
    assert {task.task_id for task in store.tasks.load_tasks(young)} == set(young)
    assert store.chain.followed_from(0) == 4, "no audit of events begins where some are not kept any more"
    assert kept.run(60.0) == Removed()


def test_a_task_that_was_claimed_only_now_stays_with_its_deal_long_after_that_ones_deadline(
    store: Store, kept: Retention
) -> None:
    tasks = put_deal(store, 1, BEFORE - 5)
    store._db["tasks"].update_one({"_id": tasks[1]}, {"$set": {"changed_at": BEFORE + 1}})
    assert kept.run(60.0) == Removed(), "until the claim is final a reorg can take it back"
    assert [left(store, name) for name in ("deals", "tasks", "logs", "intents", "outputs")] == [1, 3, 4, 6, 3]
    assert store.chain.followed_from(0) == 0
    assert replace(kept, before=BEFORE + 2).run(60.0) == Removed(deals=1, tasks=3)


def test_the_lane_finds_every_intent_that_has_not_ended_although_the_records_of_its_task_are_gone(
    store: Store, kept: Retention
) -> None:
    lane, waiting = MongoStore(store._db), [IntentState.QUEUED, IntentState.SENT, IntentState.MINED]
    tasks = put_deal(store, 1, BEFORE - 5)
    made = [Intent.new(1, ME, "claim", task) for task in tasks]
    states = zip(made, waiting, strict=True)
    lane.add([replace(each, state=state) for each, state in states])
    assert kept.run(60.0) == Removed(deals=1, tasks=3)
    lease = lane.take_lease(LANE, "me", 60.0)
    assert lease is not None
    lane.move(lease, [IntentMove(tuple(each.key for each in made), IntentState.FINAL)], ())
    assert {each.state for each in lane.intents([each.key for each in made])} == {IntentState.FINAL}


def test_a_deal_that_is_read_again_while_it_is_looked_at_keeps_its_tasks(
    store: Store, kept: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    deal_id = store.tasks.load_tasks(put_deal(store, 1, BEFORE - 5))[0].deal_id
    lately = store.ended.lately

    def repaired_meanwhile(deal_ids: list[DealId], since: float) -> set[DealId]:
        store.deals.read_again(deal_ids)
        return lately(deal_ids, since)

    monkeypatch.setattr(store.ended, "lately", repaired_meanwhile)
    assert kept.run(60.0) == Removed()
    assert left(store, "tasks") == 3
    assert store.deals.deals_to_ingest(10) == [deal_id]


def test_the_newest_nonce_stays_so_that_a_node_far_behind_cannot_have_it_used_again(
    store: Store, kept: Retention
) -> None:
    MongoStore(store._db).ensure_indexes()
    for number in range(3):
        put_nonce(store, number, 10 * DAY, Intent.new(1, ME, "finalize", f"0x{number:064x}").key)
    assert kept.gas.sum_up(20 * DAY, Nonce(3), 100) == 2
    assert MongoStore(store._db).highest_nonce(LANE) == 2
    assert kept.gas.sum_up(20 * DAY, Nonce(3), 100) == 0


def test_two_schedulers_that_sum_up_at_once_count_each_amount_once(store: Store, kept: Retention) -> None:
    MongoStore(store._db).ensure_indexes()
    for number in range(60):
        put_nonce(store, number, 10 * DAY + number, Intent.new(1, ME, "finalize", f"0x{number:064x}").key)
    even = kept.movements.begin(Books(BlockNumber(1), EVEN, BlockNumber(0), EVEN))
    moved = [replace(movement(Kind.REWARD, 1, block=1, index=number), at=int(10 * DAY)) for number in range(60)]
    kept.movements.store(
        even, replace(even, block=BlockNumber(9), proved=BlockNumber(9)), BlocksRead(BlockNumber(9), moved)
    )
    together = Barrier(2)

    def sum_up(_: int) -> tuple[int, int]:
        together.wait(ample(10))
        gas = sum(iter(lambda: kept.gas.sum_up(20 * DAY, Nonce(99), 7), 0))
        return gas, sum(iter(lambda: kept.movements.sum_up(20 * DAY, BlockNumber(9), 7), 0))

    with ThreadPoolExecutor(2) as both:
        found = list(both.map(sum_up, range(2)))
    assert [sum(each) for each in zip(*found, strict=True)] == [59, 60]
    assert sum(cost.count for cost in kept.gas.since(0.0)) == 60
    assert [each.amount for each in kept.movements.summed(By.KIND, 0.0, BlockNumber(9))] == [60]


def test_what_a_crash_cut_off_is_finished_by_the_next_run_and_compared_with_nothing_meanwhile(
    store: Store, kept: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TASKS", 2)
    deal_id = store.tasks.load_tasks(put_deal(store, 1, BEFORE - 5, size=5))[0].deal_id
    rows = store.ended._tasks
    deleted: list[object] = []

    class Dying:
        def __getattr__(self, name: str) -> object:
            return getattr(rows, name)

        def delete_many(self, wanted: dict[str, Any]) -> object:
            if deleted:
                raise AutoReconnect("killed")
            deleted.append(wanted)
            return rows.delete_many(wanted)

    monkeypatch.setattr(store.ended, "_tasks", Dying())
    with pytest.raises(AutoReconnect):
        kept.run(60.0)
    assert left(store, "tasks") == 3
    assert store.deals.ready([deal_id]) == [], "an audit would find two of its tasks missing"
    store.deals.noticed([(deal_id, BlockNumber(1), BlockHash(f"0x{1:064x}"))])
    assert store.deals.deals_to_ingest(10) == [], "its notice is read again at each start"
    monkeypatch.setattr(store.ended, "_tasks", rows)
    assert kept.run(60.0) == Removed(deals=1, tasks=3)
    assert [left(store, name) for name in ("deals", "tasks", "logs", "intents", "outputs")] == [0] * 5


def test_a_run_stops_when_its_time_is_over(store: Store, kept: Retention) -> None:
    put_deal(store, 1, BEFORE - 5)
    assert kept.run(0.0) == Removed()
    assert left(store, "tasks") == 3


def test_the_ledgers_sums_are_the_same_to_the_wei_when_its_amounts_are_not_kept(store: Store, kept: Retention) -> None:
    MongoStore(store._db).ensure_indexes()
    task = TaskId("0x" + "aa" * 32)
    moved = [
        replace(
            movement(kind, 10**17 + number, block=1 + number // 5, index=number % 5, owner=owner, task=task),
            at=int(BEFORE - 2.3 * DAY) + number * 6_000,
        )
        for number, (kind, owner) in enumerate(
            (kind, owner) for kind in Kind for owner in (ME, OTHER) for _ in range(4)
        )
    ]
    even = kept.movements.begin(Books(BlockNumber(1), EVEN, BlockNumber(0), EVEN))
    mark = Mark(BlockNumber(9), Wei(1), Nonce(8))
    proved = replace(even, block=BlockNumber(99), proved=BlockNumber(9), proved_account=Balances(1, 2), native=mark)
    kept.movements.store(even, proved, BlocksRead(BlockNumber(99), moved))
    for number in range(10):
        key = Intent.new(1, ME, ("finalize", "initialize", "call")[number % 3], task, occasion=number).key
        keys = () if number == 5 else (key,)
        put_nonce(store, number, BEFORE - 2.3 * DAY + number * 20_000, *keys, success=number != 3, value=number)

    def told(by: By, until: float = BEFORE) -> list[tuple[str, dict[Kind, int], int, int, int]]:
        found = kept.movements.summed(by, 0.0, BlockNumber(99), until)
        lines: list[Line] = statement(by, ME, kept.gas.since(0.0, until), found, {OTHER})
        return [(line.key, line.amounts, line.transactions, line.gas_wei, line.sent_wei) for line in lines]

    days = [BEFORE - 2 * DAY, BEFORE - DAY, BEFORE]
    before = [told(by, until) for by in (By.KIND, By.DAY, By.WORKER) for until in days]
    for _ in range(2):
        kept.run(60.0)
        assert [told(by, until) for by in (By.KIND, By.DAY, By.WORKER) for until in days] == before
    unsummed = list(store._db["movements"].find({"book": kept.movements._book}))
    assert unsummed, "above the last proved block they may be read again"
    assert {row["block"] > 9 or row["at"] >= BEFORE for row in unsummed} == {True}
    assert [row["nonce"] for row in store._db["nonces"].find({"lane": str(LANE)}).sort("nonce", 1)] == [8, 9]
    # By task, what is not kept is of no task.
    assert sum(line[3] for line in told(By.TASK)) == sum(line[3] for line in told(By.KIND))
