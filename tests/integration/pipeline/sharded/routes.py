"""Where MongoDB is sharded, what is done to one row is done by one shard, and only what is named here asks all.

Each public method of the store's collections is called once, as in `test_every_query`; the router then explains, for
each command, which shards it asks.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from pymongo import ASCENDING, MongoClient

from bench.rig.past import Past
from pipeline.store.client import Store
from pipeline.store.database import sharding
from pipeline.store.deals import DEALS, NEW
from pipeline.store.task.documents import to_document
from tests.integration.pipeline import test_every_query
from tests.integration.pipeline.sharded.shards import at_each_server
from tests.integration.pipeline.test_every_query import HASH, Asked, arguments, call, collections, explained

past = test_every_query.past

#: What asks all shards, by how often it is asked: never once a task.
EVERYWHERE = {
    "once a block, a visit of the sweep, a round of matching or a run of the lane": (
        "ChainStore.at_head",
        *("Deals.any_waiting", "Deals.deals_to_ingest", "Deals.lease_next", "Deals.waiting"),
        *("Tasks.any_undecided", "Tasks.tasks_due", "Tasks.tasks_wanting_workers", "Tasks.uninitialized"),
        *("Tasks.any_received", "TaskLists.waiting", "Rounds.begin", "UnservedTasks.tags", "UnservedTasks.take_up"),
        *("MongoStore.busy", "MongoStore.in_state", "MongoStore.queued"),
    ),
    "once a range of blocks that is audited, or a reorganisation": (
        *("ChainStore.deals_between", "ChainStore.logs_between", "ChainStore.repair", "ChainStore.orphan"),
        *("Deals.deals_between", "Deals.orphan_above", "Logs.logs_between", "Logs.orphan", "Logs.orphan_above"),
        *("Logs.since", "Tasks.bring_back", "Tasks.orphan", "Tasks.make_due"),
    ),
    "once a machine that went, or a winner whose result is late": (
        *("Tasks.lose_worker", "Tasks.of_worker", "Uploads.under_way"),
    ),
    "when people, metrics or the API's clients ask": (
        *("Deals.count", "Deals.count_since", "Deals.counts", "Deals.first_block", "Deals.ids_starting"),
        *("Deals.least_stake", "Deals.newest", "Logs.count", "Logs.wrong_votes", "MongoStore.count", "Tasks.of_deal"),
        *("TaskLists.count_begun", "TaskLists.count_by_stage", "TaskLists.count_finalized_since"),
        *("TaskLists.ids_starting", "TaskLists.newest", "TaskLists.of_deal", "TaskLists.of_worker"),
        *("TaskLists.open_by_deal", "TaskLists.open_of_deal", "TaskLists.open_of_deals", "TaskLists.open_pages"),
        *("TaskLists.tasks_of_deals",),
    ),
    "once a minute, of what is over": (
        *("Ended.deals_past", "Ended.delete_deals", "Ended.delete_tasks", "Ended.tasks_of"),
    ),
}


def asked_shards(plan: Any) -> set[str]:
    """The shards that an explained command asks, wherever they are named."""
    if isinstance(plan, Mapping):
        named = {str(plan["shardName"])} if "shardName" in plan else set()
        shards = plan.get("shards")
        named |= set(shards) if isinstance(shards, Mapping) else set()
        return named.union(*map(asked_shards, plan.values()))
    return set().union(*map(asked_shards, plan)) if isinstance(plan, list) else set()


def test_what_is_done_to_one_row_asks_one_shard_and_all_else_is_named(past: tuple[Past, Asked]) -> None:
    made, asked = past
    known = arguments(made)
    deal = DEALS.to_document(known["DealRecord"]) | {"state": NEW, "block_hash": HASH, "fence": 1, "read": True}
    task = to_document(known["TaskRecord"])
    everywhere: dict[str, list[str]] = {}
    for name, part in collections(made.db).items():
        for method, function in inspect.getmembers(part, inspect.ismethod):
            if method.startswith("_") or method in ("ensure_indexes", "of"):
                continue
            made.db["deals"].replace_one({"_id": deal["_id"]}, deal, upsert=True)
            made.db["tasks"].replace_one({"_id": task["_id"]}, task, upsert=True)
            asked.commands.clear()
            call(function, known)
            for command in list(asked.commands):
                for one, plan in explained(made.db, command):
                    if len(asked_shards(plan)) > 1:
                        everywhere.setdefault(f"{name}.{method}", []).append(f"{one}"[:300])
    named = {name for names in EVERYWHERE.values() for name in names}
    unknown = {name: commands for name, commands in everywhere.items() if name not in named}
    assert not unknown, json.dumps(unknown, indent=1)
    assert named <= everywhere.keys(), "named, and asks one shard by now"


def test_every_collection_is_sharded_or_has_a_reason_not_to_be(past: tuple[Past, Asked]) -> None:
    db = past[0].db
    stated = {each.collection for each in sharding.SHARDED} | sharding.ON_ONE_SHARD.keys()
    assert {name for name in db.list_collection_names() if not name.startswith("system.")} <= stated
    with at_each_server(db) as shards:
        first, *others = (set(each.list_collection_names()) for each in shards.values())
    assert others == [{each.collection for each in sharding.SHARDED}]
    assert others[0] <= first
    assert sharding.unsharded(db) == []


def test_a_task_is_read_together_with_its_events_from_one_shard(past: tuple[Past, Asked]) -> None:
    made, _ = past
    store = Store.of(made.db)
    with at_each_server(made.db) as shards:
        asked: dict[str, set[str]] = {}
        of_each = [list(db["tasks"].find({}, {"_id": 1}).limit(3)) for db in shards.values()]
        for task in [task for tasks in of_each for task in tasks]:
            for db in shards.values():
                db.command("profile", 2, filter={"op": {"$in": ["query", "command", "getmore"]}})
            ((_, logs),) = store.tasks.load_with_logs([task["_id"]])
            assert logs
            for name, db in shards.items():
                db.command("profile", 0)
                rows = db["system.profile"].find({"ns": {"$in": [f"{db.name}.tasks", f"{db.name}.logs"]}})
                # The first shard is the router too, as which it reads nothing itself.
                if any(row.get("docsExamined") for row in rows):
                    asked.setdefault(task["_id"], set()).add(name)
                db.drop_collection("system.profile")
    assert {len(names) for names in asked.values()} == {1}
    assert len(set().union(*asked.values())) > 1, "all tasks were on one shard"


def test_a_row_is_changed_and_returned_whichever_shard_has_it(past: tuple[Past, Asked]) -> None:
    rows = past[0].db["tasks"]
    with at_each_server(rows.database) as shards:
        of_each = [[row["_id"] for row in db["tasks"].find({}, {"_id": 1}).limit(3)] for db in shards.values()]
    for task in [task for tasks in of_each for task in tasks]:
        changed = rows.find_one_and_update({"_id": task}, {"$set": {"looked": 1}})
        assert changed is not None
        assert changed["_id"] == task
    assert [len(tasks) for tasks in of_each] == [3, 3]


def test_a_database_with_rows_is_sharded_with_them_and_a_second_time_changes_nothing(
    kept_database: tuple[str, MongoClient[dict[str, Any]]],
) -> None:
    _, client = kept_database
    db = client["test_of_sharding"]
    client.drop_database(db.name)
    try:
        Store.of(db).ensure_indexes()
        db["tasks"].insert_many([{"_id": f"0x{number:064x}", "deal": "d", "index": number} for number in range(50)])
        # As a process of the release before makes it at its start, also after the migration.
        db["tasks"].create_index([("deal", ASCENDING), ("index", ASCENDING)], name="by_deal", unique=True)
        assert sharding.shard(db) == [*sharding.SHARDED]
        assert sharding.shard(db) == []
        assert db["tasks"].count_documents({}) == 50
        Store.of(db).ensure_indexes()
    finally:
        client.drop_database(db.name)
