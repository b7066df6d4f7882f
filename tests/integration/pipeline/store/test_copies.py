"""Reading a database at one moment while others write, and putting it in the place of another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import bson
import pytest
from pydantic import SecretStr
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from chain.lane.model.intent import UNTIL, Intent, IntentState, LaneId
from chain.lane.store.mongo import MongoStore
from chain.lane.transfer import Transfer
from config.connections import mongodb
from config.processes.per_process import PerProcess
from config.settings import read_settings
from ops.backup.take import preview, take
from ops.stack.stack import Stack
from pipeline.domain.condition.facts import DatabaseFacts, NoAnswer
from pipeline.probes import ask_database
from pipeline.store import orders
from pipeline.store.client import Store
from pipeline.store.database.copies import STAGE, Copies, Disturbed
from pipeline.store.money import transfer_wish
from pipeline.store.money.transfer_wish import TransferWish, TransferWishes
from pipeline.store.orders import Orders
from protocol.errors import NotPossible
from protocol.types import Contract, NRlc, Wallet, Wei
from tests.waiting import ample, until

LANE = LaneId(31337, Wallet("0x" + "ab" * 20))


@pytest.fixture
def db(stack: Stack, database: str) -> Iterator[Database[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](stack.settings["SLUICE_MONGODB_URI"]) as client:
        yield client[database]


def ids(documents: Any) -> list[int]:
    return [bson.decode(document)["_id"] for document in documents]


def test_every_collection_is_read_as_it_was_at_one_moment(db: Database[dict[str, Any]]) -> None:
    for name in ("deals", "tasks"):
        db[name].insert_many([{"_id": number, "fill": "x" * 1000} for number in range(2000)])
    with Copies(db).snapshot() as snapshot:
        deals = snapshot.documents("deals")
        first = ids([next(deals)])
        # Both change while the first is read: a task goes, one comes, and deals that are yet to be read change.
        db["tasks"].delete_one({"_id": 5})
        db["tasks"].insert_one({"_id": 5000})
        db["deals"].delete_many({"_id": {"$gt": 1000}})
        assert sorted(first + ids(deals)) == list(range(2000))
        assert sorted(ids(snapshot.documents("tasks"))) == list(range(2000))


def test_a_collection_that_comes_in_the_middle_has_the_reading_begun_anew(db: Database[dict[str, Any]]) -> None:
    db["deals"].insert_one({"_id": 1})
    with pytest.raises(Disturbed), Copies(db).snapshot() as snapshot:
        assert ids(snapshot.documents("deals")) == [1]
        db["blocks"].insert_one({"_id": 1})


def test_a_copy_takes_the_place_of_everything_and_what_is_half_done_changes_nothing(
    db: Database[dict[str, Any]],
) -> None:
    copies = Copies(db)
    assert copies.is_empty()
    Store.of(db).ensure_indexes()
    assert copies.is_empty()
    db["tasks"].insert_one({"_id": "old"})
    db["outputs"].insert_one({"_id": "old"})
    assert not copies.is_empty()

    copies.stage("tasks", [bson.encode({"_id": "cut off"})])
    assert db["tasks"].find_one() == {"_id": "old"}
    copies.forget_stage()
    many = [bson.encode({"_id": number, "fill": "x" * 1000}) for number in range(20_000)]
    assert copies.stage("tasks", many) == len(many)
    copies.put_in_place()
    assert db["tasks"].count_documents({}) == len(many)
    assert db["tasks"].find_one({"_id": 19_999}) == {"_id": 19_999, "fill": "x" * 1000}
    assert not [name for name in db.list_collection_names() if name.startswith(STAGE)]
    assert "outputs" not in db.list_collection_names()
    db.drop_collection("tasks")
    Store.of(db).ensure_indexes()


@pytest.mark.parametrize("what", ["a restore", "dropping it"])
def test_a_transaction_that_a_killed_process_left_in_the_database_is_waited_for(
    db: Database[dict[str, Any]],
    stack: Stack,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    what: str,
) -> None:
    """Longer than any other operation may take: MongoDB ends it only after its own time."""
    monkeypatch.setattr(mongodb, "_clients", PerProcess(dict))
    monkeypatch.setattr(mongodb, "OPERATION_SECONDS", 1.0)
    request.addfinalizer(mongodb.close)
    uri = stack.settings["SLUICE_MONGODB_URI"]
    copies = Copies(mongodb.client(uri)[database])
    db["tasks"].insert_one({"_id": "old"})
    copies.stage("tasks", [bson.encode({"_id": "new"})])
    works = copies.put_in_place if what == "a restore" else partial(mongodb.drop_database, uri, database)
    with db.client.start_session() as left:
        left.start_transaction()
        db["tasks"].insert_one({"_id": "half"}, session=left)
        with ThreadPoolExecutor(1) as beside:
            done = beside.submit(works)
            longer = {"waitingForLock": True, "microsecs_running": {"$gte": 1_500_000}, "ns": {"$regex": database}}
            pipeline: list[dict[str, Any]] = [{"$currentOp": {"allUsers": True}}, {"$match": longer}]
            until("the lock to be waited for", lambda: list(db.client.admin.aggregate(pipeline)) or done.done(), 10)
            left.abort_transaction()
            done.result(ample(10))
    assert list(db["tasks"].find()) == ([{"_id": "new"}] if what == "a restore" else [])


@pytest.mark.parametrize("state", [IntentState.QUEUED, IntentState.SENT, IntentState.FINAL])
def test_a_transfer_that_a_backup_still_wants_is_not_sent_again(
    db: Database[dict[str, Any]], state: IntentState
) -> None:
    rlc, wei = NRlc(9), Wei(1)
    transfer = Transfer("deposit", NRlc(5), rlc, rlc, rlc, Contract("0x" + "11" * 20), "0x", wei, 50_000, wei)
    wish, store = TransferWish.of(transfer, 1000.0), MongoStore(db)
    TransferWishes(db).begin(wish)
    intent = wish.intent(LANE)
    store.add([intent, Intent.new(31337, LANE.wallet, "finalize", "0x" + "01" * 32, now=1000.0)])
    db["intents"].update_one({"_id": intent.key}, {"$set": {"state": state.value}})

    assert transfer_wish.give_up(db["pool"], db["intents"])
    found, other = store.intents([intent.key])[0], db["intents"].find_one({"method": "finalize"})
    # What has ended stays as it is told; anything else is never given a nonce (again).
    assert found.overdue(1001.0) == (state is not IntentState.FINAL)
    assert other is not None
    assert UNTIL not in other["args"]
    assert TransferWishes(db).pending() is None
    assert not transfer_wish.give_up(db["pool"], db["intents"])


def test_a_restored_hold_keeps_everything_from_being_offered_until_the_operator_publishes_again(
    db: Database[dict[str, Any]],
) -> None:
    copies = Copies(db)
    for _ in range(2):
        assert copies.stage("orders", [bson.encode({"_id": "0x" + "01" * 32, "number": 1})]) == 1
        assert orders.hold(copies.staged("orders"), 1000.0)
        assert not orders.hold(copies.staged("orders"), 2000.0)
        copies.put_in_place()
        assert Orders(db).held()
        assert Orders(db).highest_number() == 1
    assert Orders(db).release()
    assert not Orders(db).held()


def test_no_scheduler_starts_on_what_a_restore_that_was_cut_off_left(
    db: Database[dict[str, Any]], stack: Stack, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = SecretStr(stack.settings["SLUICE_MONGODB_URI"])
    given = read_settings(mongodb_uri=uri, mongodb_database=database)
    copies, store, rename = Copies(db), Store.of(db), Collection.rename
    store.ensure_indexes()
    db["tasks"].insert_one({"_id": "old"})

    def stage() -> None:
        copies.forget_stage()
        for name in ("cursors", "deals", "tasks"):
            copies.stage(name, [bson.encode({"_id": "new"})])

    # Nothing has changed yet: what was there may be kept.
    stage()
    with pytest.raises(NotPossible, match=r"was cut off: give the same command again with --replace, or drop"):
        store.ensure_indexes()
    copies.forget_stage()
    store.ensure_indexes()
    assert isinstance(ask_database(given, time.time), DatabaseFacts)

    # Killed before each of the renames in turn, and then while everything is staged again.
    for kept in range(3):
        stage()
        left = iter(range(kept))

        def killed(self: Any, name: str, left: Iterator[int] = left, **options: Any) -> object:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return rename(self, name, **options)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Collection, "rename", killed)
            copies.put_in_place()
        with pytest.raises(NotPossible, match=r"was cut off: give the same command again with --replace\.$"):
            store.ensure_indexes()
        copies.forget_stage()
        told = ask_database(given, time.time)
        assert told == NoAnswer("A restore was cut off", "Give the same command again with --replace.")
    stage()
    copies.put_in_place()
    store.ensure_indexes()
    assert db["tasks"].find_one() == {"_id": "new"}


def test_no_backup_is_made_of_what_a_restore_left_part_old_part_new(
    db: Database[dict[str, Any]], stack: Stack, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = read_settings(
        mongodb_uri=SecretStr(stack.settings["SLUICE_MONGODB_URI"]),
        mongodb_database=database,
        hub="0x" + "11" * 20,
        workerpool="0x" + "22" * 20,
    )
    Store.of(db).ensure_indexes()
    db["tasks"].insert_one({"_id": "old"})
    copies = Copies(db)
    copies.stage("tasks", [bson.encode({"_id": "new"})])
    # Nothing has changed yet.
    assert take(given, tmp_path / "whole", keys=False, secrets=False).documents == 2

    def killed(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Collection, "rename", killed)
        copies.put_in_place()
    for make in (partial(take, secrets=False), preview):
        with pytest.raises(NotPossible, match=r"part old, part new.* --replace"):
            make(given, tmp_path / "half", keys=False)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
