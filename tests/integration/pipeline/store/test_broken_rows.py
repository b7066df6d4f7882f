"""Rows that no record fits, of every kind, in every collection: they are quarantined, and everything else goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bson import json_util
from pymongo.database import Database
from structlog.testing import capture_logs

from pipeline.domain.outcomes import Trouble
from pipeline.domain.records import TaskStage
from pipeline.flow import sweep
from pipeline.scheduler import Scheduler
from pipeline.store.client import Store, database
from pipeline.store.database.migrations import migrate
from pipeline.store.deals import UNREADABLE
from pipeline.store.documents import SCHEMA
from pipeline.store.quarantine import FIRST_WAIT
from protocol.errors import InQuarantine
from protocol.poco.events import BlockRef
from protocol.types import BlockHash, BlockNumber, DealId, Hash32, NRlc, TaskId, Timestamp, Wallet
from tests.integration.pipeline.conftest import Pool
from tests.integration.pipeline.rows import ALICE, DEAL, broken, some_tasks
from tests.integration.pipeline.test_sweep import notice, taken_in

LAST_RELEASE = Path(__file__).parents[3] / "data" / "store-of-the-last-release.json"
FAR = 10**10


@pytest.fixture
def pool(make_pool: Callable[..., Pool]) -> Pool:
    return make_pool()


@pytest.fixture
def scheduler(pool: Pool) -> Iterator[Scheduler]:
    opened = Scheduler.open(pool.settings)
    opened.ensure_indexes()
    yield opened
    opened.close()
    opened.hub.rpc.close()  # type: ignore[attr-defined]  # a node's client, whatever stands for it


def old_rows() -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = json_util.loads(LAST_RELEASE.read_text())
    return rows


def fill_with_broken_rows(db: Database[dict[str, Any]]) -> int:
    """Rows of every collection with every kind of fault, due at once and matched first."""
    count = 0
    rows = old_rows()
    task = next(row for row in rows["tasks"] if row["replicates"])
    urgent = {"next_visit": 0.0, "wants": 1, "contribution_deadline": FAR, "final_deadline": FAR, "open": True}
    free = {"seen_at": time.time() + 3600, "free": 5, "banned": False, "rest_until": 0.0, "checked_at": time.time()}
    patterns = {
        "tasks": task | urgent,
        "workers": rows["workers"][0] | free,
        "deals": next(row for row in rows["deals"] if row["state"] == "ready") | {"state": "new", "read": True},
        "logs": next(row for row in rows["logs"] if row["kind"] == "TaskContribute"),
        "outputs": rows["outputs"][0],
    }
    for name, pattern in patterns.items():
        made = []
        for changed in broken(pattern):
            count += 1
            row_id = f"0x{count:064x}" if name != "workers" else f"0x{count:040x}"
            # Tasks are unique by deal and index, unless those are what is broken.
            own = {"deal": row_id} if changed.get("deal") == pattern.get("deal", 0) else {}
            made.append({**changed, **own, "_id": row_id})
        for row in made:
            if name == "tasks" and not (isinstance(row.get("deal"), str) and isinstance(row.get("index"), int)):
                row["deal" if not isinstance(row.get("deal"), str) else "index"] = [row["_id"]]
        db[name].insert_many(made)
    db["cursors"].insert_one({"_id": "reorgs", "last": [{"ancestor": 5}, None]})
    return count


def test_whatever_is_broken_in_the_database_a_new_deal_is_stored_initialized_and_given_out(
    pool: Pool, scheduler: Scheduler
) -> None:
    assert fill_with_broken_rows(database(pool.settings)) > 100
    pool.enrol(0)
    deal = pool.buy(trust=1)
    notice(scheduler, deal)
    with capture_logs():
        taken_in(scheduler, deal)
    # Rendering hundreds of tracebacks takes longer than everything else.
    with capture_logs():
        for _ in range(2):
            sweep.sweep(scheduler)
            scheduler.lane.run()
    (task,) = scheduler.store.tasks.load_tasks(deal.tasks)
    # Perhaps to a machine made of a row that is odd and fits all the same.
    assert task.replicates
    assert "initialize" in task.sent
    aside = scheduler.store.quarantine.counts()
    assert {"tasks", "workers"} <= aside.keys()
    assert scheduler.store.chain.reorgs() == []
    assert all(entry.why for entry in scheduler.store.quarantine.entries())


def test_a_row_is_taken_up_again_once_it_fits_and_is_asked_for_rarely_until_then(store: Store) -> None:
    db = store._db
    first, second = (task.task_id for task in some_tasks(store, 2))
    db["tasks"].update_one({"_id": first}, {"$set": {"stage": "PONDERING"}})
    assert [task.task_id for task in store.tasks.of_deal(DEAL)] == [second]
    with pytest.raises(InQuarantine):
        store.tasks.get_task(first)
    (entry,) = store.quarantine.entries()
    assert (entry.collection, entry.key, entry.times) == ("tasks", first, 1)
    assert "stage" in entry.why
    now = time.time()
    assert first not in {task.task_id for task in store.tasks.tasks_due(now, 10)}, "it takes no other task's place"
    assert store.quarantine.entries_due(now, 10) == []
    store.reread_quarantined(store.quarantine.entries_due(now + FIRST_WAIT + 1, 10)[0])
    assert store.quarantine.entries(), "it still does not fit"
    assert store.quarantine.make_due("tasks", first) == 1
    db["tasks"].update_one({"_id": first}, {"$set": {"stage": str(TaskStage.RECEIVED)}})
    store.reread_quarantined(store.quarantine.entries_due(now, 10)[0])
    assert store.quarantine.entries() == []
    assert first in {task.task_id for task in store.tasks.tasks_due(now, 10)}
    assert store.tasks.get_task(first)


def test_a_row_that_an_operator_accepted_is_not_counted_until_its_reason_changes(store: Store) -> None:
    quarantine, counted = store.quarantine, {"deals": 1}
    quarantine.add("deals", [("0x1", "trust is too large")], now=0.0)
    assert quarantine.accept(None, "0x2", accepted=True) == 0
    assert quarantine.accept("tasks", "0x1", accepted=True) == 0
    assert quarantine.counts() == counted
    assert quarantine.accept(None, "0x1", accepted=True) == 1
    assert quarantine.counts() == {}
    assert [entry.accepted for entry in quarantine.entries()] == [True]
    later = FIRST_WAIT + 1
    quarantine.add("deals", [("0x1", "trust is too large")], now=later)
    assert quarantine.counts() == {}
    quarantine.add("deals", [("0x1", "its name is no UTF-8")], now=later + 3 * FIRST_WAIT)
    assert quarantine.counts() == counted
    quarantine.accept(None, "0x1", accepted=True)
    assert quarantine.accept(None, "0x1", accepted=False) == 1
    assert quarantine.counts() == counted
    quarantine.accept(None, "0x1", accepted=True)
    quarantine.release("deals", "0x1")
    quarantine.add("deals", [("0x1", "its name is no UTF-8")], now=later + 9 * FIRST_WAIT)
    assert quarantine.counts() == counted, "it was well in between"


def test_a_deal_that_was_quarantined_is_read_again_by_itself(store: Store) -> None:
    store.deals.noticed([(DEAL, BlockNumber(1), BlockHash("0x" + "11" * 32))])
    store.deals.quarantine(DEAL, "the node answered 0x")
    assert store.deals.deals_to_ingest(10) == []
    store.reread_quarantined(store.quarantine.entries_due(time.time() + FIRST_WAIT + 1, 10)[0])
    assert store.deals.deals_to_ingest(10) == [DEAL]
    assert store.quarantine.entries() == []


def test_a_task_with_a_log_that_cannot_be_read_is_judged_by_the_contract_alone(store: Store) -> None:
    db = store._db
    for name, rows in old_rows().items():
        db[name].delete_many({})
        db[name].insert_many(rows)
    task = next(row for row in old_rows()["tasks"] if row["replicates"])["_id"]
    assert store.chain.logs.of_tasks([task])
    db["logs"].update_one({"event.task_id": task, "kind": "TaskContribute"}, {"$unset": {"event.worker": ""}})
    _, unread = store.chain.logs.read([task])
    assert unread == {task}
    with pytest.raises(InQuarantine):
        store.chain.logs.of_tasks([task])


def test_a_cursor_that_cannot_be_read_is_the_newest_block_that_can(store: Store) -> None:
    blocks = [
        BlockRef(
            BlockNumber(number), BlockHash(f"0x{number:064x}"), BlockHash(f"0x{number - 1:064x}"), Timestamp(number)
        )
        for number in (5, 6)
    ]
    store.chain.commit(blocks, [])
    assert store.chain.cursor() == blocks[1]
    store._db["cursors"].update_one({"_id": "watch"}, {"$set": {"number": "six", "at": "noon"}})
    assert store.sweeps.outages(0.0, 0.0) == Trouble(0.0, 0.0), "nothing else is quarantined for it"
    store._db["blocks"].update_one({"_id": 6}, {"$unset": {"hash": ""}})
    assert store.chain.cursor() == blocks[0]
    store.chain.commit([blocks[1]], [])
    assert store.chain.cursor() == blocks[1]


# -- from the last release ---------------------------------------------------------------------------------------------


def test_what_the_last_release_stored_is_read_and_migrated_once_by_any_number_of_processes(store: Store) -> None:
    db = store._db
    for name, rows in old_rows().items():
        db[name].delete_many({})
        db[name].insert_many(rows)
    assert [migrate(db), migrate(db)] == [1, SCHEMA]
    store.ensure_indexes()
    tasks = store.tasks.of_deal(DEAL)
    assert [task.stage for task in tasks] == [
        TaskStage.RECEIVED,
        TaskStage.RUNNING,
        TaskStage.COMPLETED,
        TaskStage.RECEIVED,
    ]
    assert (tasks[1].leading, tasks[1].replicates[0].link is not None, tasks[3].failed) == (
        2**80,
        True,
        {"initialize": 1},
    )
    alice = store.workers.get_worker(ALICE)
    assert alice is not None
    assert (alice.facts.stake, len(alice.held), len(alice.pledged)) == (2**70, 1, 1)
    assert store.deals.get_deal(DEAL) is not None
    assert store.chain.cursor() is not None
    assert len(store.chain.logs.logs_between(BlockNumber(0), BlockNumber(100))) == 5
    assert store.outputs.of_task(tasks[1].task_id)
    assert store.quarantine.entries() == []


def test_deals_that_the_last_release_gave_up_for_ever_are_read_again(store: Store) -> None:
    db = store._db
    lost = DealId("0x" + "bd" * 32)
    db["deals"].insert_many(old_rows()["deals"])
    assert db["deals"].count_documents({"_id": lost, "state": UNREADABLE}) == 1
    db["cursors"].delete_many({})
    migrate(db)
    assert lost in store.deals.deals_to_ingest(10)
    store.deals.quarantine(lost, "still")
    migrate(db)
    assert lost not in store.deals.deals_to_ingest(10), "once"


def test_machines_that_signed_in_under_the_last_release_are_found_for_tasks_with_a_tag_and_a_stake(
    store: Store,
) -> None:
    db, bits = store._db, "0x" + "0" * 63 + "3"
    (pattern, *_) = old_rows()["workers"]
    old = {"seen_at": time.time(), "banned": False, "lost": False, "free": 1, "rest_until": 0.0, "tag": bits}
    facts = pattern["facts"] | {"funded": True, "stake": "500"}
    changes: list[dict[str, object]] = [{"tag": "0xzz"}, {"tag": 7}, {"facts": 1}]
    strange = [{"_id": f"0x{n:040x}", **change} for n, change in enumerate(changes)]
    db["workers"].insert_many([pattern | old | {"facts": facts}, *(pattern | row for row in strange)])
    assert not db["workers"].find_one({"tag_bits": {"$exists": True}})
    db["workers"].create_index([("free", 1), ("seen_at", 1)], name="free")
    db["tasks"].create_index([("next_visit", 1)], name="due", partialFilterExpression={"open": True})
    db["cursors"].delete_many({})
    migrate(db)
    found = store.workers.with_free_slots(0.0, 10, tag=Hash32(bits), stake=NRlc(500))
    assert [worker.wallet for worker in found] == [pattern["_id"]]
    assert store.workers.with_free_slots(0.0, 10, stake=NRlc(501)) == []
    assert "free" not in db["workers"].index_information()
    assert "due" not in db["tasks"].index_information()
    assert [migrate(db), migrate(db)] == [SCHEMA, SCHEMA]


def test_a_ping_about_a_broken_task_row_has_no_verdict(store: Store) -> None:
    (task,) = some_tasks(store, 1)
    store._db["tasks"].update_one({"_id": task.task_id}, {"$set": {"replicates": 7}})
    told = store.tasks.verdicts_for_ping([TaskId(task.task_id)], Wallet(ALICE))
    assert not any(told)
