"""Two releases over one database: what the newer one stores, the older one leaves as it is and passes on."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from structlog.testing import capture_logs

from pipeline.domain.money.ledger import Books
from pipeline.domain.records import ChainFacts, Outcome, Replicate, Reservation, TaskStage
from pipeline.flow.ingest import task_records
from pipeline.store.client import Store
from pipeline.store.database.migrations import migrate
from pipeline.store.documents import SCHEMA
from pipeline.store.logs import LOGS, Together
from pipeline.store.money import ledger
from pipeline.store.money.ledger import BlocksRead, Movements
from pipeline.store.quarantine import FIRST_WAIT, LATER_RELEASE
from pipeline.store.task.tasks import NewReplicates
from protocol.poco.events import Seen, TaskConsensus, TaskContribute, TaskEvent
from protocol.poco.money import EVEN
from protocol.types import BlockHash, BlockNumber, Contract, Hash32, NRlc, TaskId, Timestamp, TxHash, Wei
from protocol.wire import Mode, ResultLink, Step
from tests.integration.pipeline.rows import ALICE, BOB, DEAL, NOW, deal, enrol, some_tasks
from tests.unit.pipeline.money.test_ledger import ME

#: What a later release might store beside what this one knows.
LATER: dict[str, Any] = {"mood": {"since": NOW, "words": ["calm"]}, "schema": SCHEMA + 1}
LINK = ResultLink(storage="ipfs", location="/ipfs/QmResult")
HUB = Contract("0x" + "4b" * 20)
WON = Hash32("0x" + "77" * 32)


def later(store: Store, collection: str, key: object, **inner: object) -> None:
    """A process of a later release has written the row."""
    within = {name.replace("__", "."): value for name, value in inner.items()}
    written = store._db[collection].update_one({"_id": key}, {"$set": LATER | within})
    assert written.matched_count == 1


def row(store: Store, collection: str, key: object) -> dict[str, Any]:
    found = store._db[collection].find_one({"_id": key})
    assert found is not None
    return found


def kept(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found.get(key) for key in LATER}


def test_a_task_keeps_what_a_later_release_stored_in_it_through_its_whole_life(store: Store) -> None:
    (task,) = some_tasks(store, 1)
    store.tasks.assign([NewReplicates(task, (Replicate(ALICE, Mode.VOTE, 2, NOW),), 1, 2, 0)], NOW, NOW)
    later(store, "tasks", task.task_id, replicates__0__proof="0x1")

    (seen,) = store.tasks.load_tasks([task.task_id])
    assert store.tasks.save([replace(seen, wants=0, leading=2**80, stage=TaskStage.RUNNING)]) == {task.task_id}
    store.tasks.add_replicate(task.task_id, Replicate(BOB, Mode.VOTE, 2, NOW))
    (seen,) = store.tasks.load_tasks([task.task_id])
    swapped = replace(seen, replicates=tuple(reversed(seen.replicates)))
    assert store.tasks.save([swapped]) == {task.task_id}
    store.tasks.set_next_visits({task.task_id: (swapped.version + 1, NOW)})
    store.tasks.record_report(task.task_id, ALICE, Step.COMPUTED, NOW, None, 0)
    store.tasks.record_upload(task.task_id, ALICE, LINK, Hash32("0x" + "11" * 32), None, NOW)
    store.tasks.bring_back(deal(1, block=11))
    store.tasks.forget_sent([task.task_id])
    store.tasks.lose_worker(BOB)

    found = row(store, "tasks", task.task_id)
    assert kept(found) == LATER
    assert [(each["wallet"], each.get("proof")) for each in found["replicates"]] == [(BOB, None), (ALICE, "0x1")]
    (seen,) = store.tasks.load_tasks([task.task_id])
    assert (seen.stage, seen.leading, seen.replicates[1].link) == (TaskStage.RUNNING, 2**80, LINK)


def test_a_saved_task_is_what_was_decided_and_nothing_of_what_it_was(store: Store) -> None:
    (task,) = some_tasks(store, 1)
    given = (Replicate(ALICE, Mode.VOTE, 2, NOW, steps={Step.STARTED: NOW}), Replicate(BOB, Mode.VOTE, 2, NOW))
    full = replace(task, replicates=given, failed={"finalize": 2}, why="late")
    assert store.tasks.save([full])
    (seen,) = store.tasks.load_tasks([task.task_id])
    assert seen == replace(full, version=task.version + 1)
    fewer = replace(seen, replicates=(Replicate(ALICE, Mode.VOTE, 2, NOW),), failed={}, why=None)
    assert store.tasks.save([fewer])
    (seen,) = store.tasks.load_tasks([task.task_id])
    assert seen == replace(fewer, version=fewer.version + 1)


def test_a_deal_keeps_what_a_later_release_stored_in_it_while_its_tasks_are_stored(store: Store) -> None:
    store.deals.noticed([(DEAL, BlockNumber(10), BlockHash("0x" + "0a" * 32))])
    later(store, "deals", DEAL)
    lease = store.deals.lease_and_store(deal(), NOW)
    assert lease is not None
    store.tasks.insert_new(task_records(deal()))
    assert store.deals.progress(lease, 2, NOW + 5, again=False)
    assert store.deals.mark_ingested(lease)
    assert kept(row(store, "deals", DEAL)) == LATER
    assert store.deals.get_deal(DEAL) == deal()


def test_a_machine_keeps_what_a_later_release_stored_in_it(store: Store) -> None:
    enrol(store, ALICE)
    later(store, "workers", ALICE, facts__tips=5)
    task = TaskId("0x" + "01" * 32)
    store.workers.store_facts([(ALICE, ChainFacts(2, NRlc(1000), Wei(1), funded=True, score=9))], NOW)
    assert store.workers.reserve(ALICE, [Reservation(task, NOW, NRlc(30))])
    store._db["workers"].update_one({"_id": ALICE}, {"$set": {"held.0.room": "x"}})
    store.workers.pledge([(ALICE, task)])
    enrol(store, ALICE)
    store.workers.mark_seen(ALICE, NOW + 1)
    found = row(store, "workers", ALICE)
    assert (kept(found), found["facts"]["tips"], found["facts"]["score"]) == (LATER, 5, 9)
    assert found["pledged"][0]["room"] == "x"
    store.workers.release([(ALICE, task)], Outcome.PAID, NOW)
    assert kept(row(store, "workers", ALICE)) == LATER


def test_of_events_that_share_a_row_an_older_release_reads_the_last_as_a_row_of_its_own(store: Store) -> None:
    (task,) = some_tasks(store, 1)
    at = BlockNumber(11), BlockHash("0x" + "0b" * 32), Timestamp(11), TxHash("0x" + "1" * 64)
    happened: list[TaskEvent] = [TaskContribute(task.task_id, ALICE, WON), TaskConsensus(task.task_id, WON)]
    seen = tuple(Seen(event, *at, index) for index, event in enumerate(happened))
    store.chain.logs.put(seen)
    (found,) = store._db["logs"].find({"event.task_id": task.task_id})
    alone = LOGS.to_document(Together(seen[1:]))
    assert {name: found[name] for name in alone if name != "_id"} == {k: v for k, v in alone.items() if k != "_id"}
    # It reads the block again when it starts.
    store._db["logs"].insert_many([alone, LOGS.to_document(Together(seen[:1]))])
    assert store.chain.logs.of_tasks([task.task_id]) == {task.task_id: list(seen)}


def test_books_keep_what_a_later_release_stored_in_them(store: Store) -> None:
    ledger.ensure_indexes(store._db)
    movements = Movements(store._db, 1, HUB, ME)
    books = movements.begin(Books(BlockNumber(1), EVEN, BlockNumber(0), EVEN))
    later(store, "cursors", f"ledger:1:{HUB}:{ME}")
    after = movements.store(books, books.with_movements(BlockNumber(5), []), BlocksRead(BlockNumber(5), ()))
    assert (after.block, after.version) == (5, books.version + 1)
    assert movements.books() == after
    assert kept(row(store, "cursors", f"ledger:1:{HUB}:{ME}")) == LATER


def test_an_older_process_that_starts_migrates_nothing_of_a_later_release(store: Store) -> None:
    (task,) = some_tasks(store, 1)
    later(store, "tasks", task.task_id)
    store._db["cursors"].update_one({"_id": "schema"}, {"$set": {"version": SCHEMA + 1}}, upsert=True)
    before = row(store, "tasks", task.task_id)
    assert migrate(store._db) == SCHEMA + 1
    store.ensure_indexes()
    assert row(store, "cursors", "schema")["version"] == SCHEMA + 1
    assert row(store, "tasks", task.task_id) == before


def test_a_row_that_only_a_later_release_can_read_is_never_put_off_for_long(store: Store) -> None:
    (task,) = some_tasks(store, 1)
    later(store, "tasks", task.task_id, stage="PONDERING")
    for times in range(1, 5):
        with capture_logs():
            assert store.tasks.load_tasks([task.task_id]) == []
        (entry,) = store.quarantine.entries()
        assert (entry.times, entry.why.startswith(LATER_RELEASE)) == (times, True)
        assert entry.until <= time.time() + FIRST_WAIT
        assert row(store, "tasks", task.task_id)["next_visit"] == entry.until
        # The time passes.
        store.quarantine.make_due()
    assert kept(row(store, "tasks", task.task_id)) == LATER


def test_what_an_older_release_stored_is_read_with_defaults_and_completed_by_the_next_write(store: Store) -> None:
    (task,) = some_tasks(store, 1)
    store._db["tasks"].update_one({"_id": task.task_id}, {"$unset": {"newcomers": "", "schema": ""}})
    (seen,) = store.tasks.load_tasks([task.task_id])
    assert seen == task
    assert store.tasks.save([seen]) == {task.task_id}
    found = row(store, "tasks", task.task_id)
    assert (found["newcomers"], found["schema"]) == (task.newcomers, SCHEMA)
