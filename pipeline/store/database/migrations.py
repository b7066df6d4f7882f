"""Migrations of what an older release stored to what this release reads, run at start.

Every step is idempotent and made of conditional updates, so that several processes may take it at a time and a crash in
the middle costs nothing; the version is noted when it is done. A step never changes what the release before could not
read any more: both may share a database during an upgrade. So an index that changes gets another name, and the old one
is dropped a release later.

Rows are not rewritten to carry a new version: a field that is missing has a default (`pipeline.store.documents`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import OperationFailure

from pipeline.store.deals import NEW, UNREADABLE
from pipeline.store.documents import SCHEMA
from pipeline.store.quarantine import Quarantine
from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_bytes

log = structlog.get_logger(__name__)

#: The row in `cursors` that tells the version.
VERSION = "schema"
#: Rows changed at a time.
_BATCH = 1000


def migrate(db: Database[dict[str, Any]]) -> int:
    """Take the steps that are still to be taken; returns the version found. Cheap when there are none."""
    row = db["cursors"].find_one({"_id": VERSION}) or {}
    found = int(row.get("version") or 1)
    for version in range(found + 1, SCHEMA + 1):
        _STEPS[version](db)
        log.info("The database was brought to a new version.", action="migrated", version=version)
    if found < SCHEMA:
        db["cursors"].update_one({"_id": VERSION}, {"$max": {"version": SCHEMA}}, upsert=True)
    again = Quarantine(db).new_release()
    if again:
        log.info("Rows that another release quarantined are read again.", action="quarantine_again", rows=again)
    return found


def _to_schema_2(db: Database[dict[str, Any]]) -> None:
    """0.1 marked a deal unreadable for ever when a node answered `0x` once: they are read again."""
    deals = db["deals"]
    while rows := list(deals.find({"state": UNREADABLE, "schema": {"$exists": False}}, {"_id": 1}).limit(_BATCH)):
        deals.bulk_write(
            [
                UpdateOne(
                    {"_id": row["_id"], "state": UNREADABLE, "schema": {"$exists": False}},
                    {"$set": {"state": NEW, "schema": 2}},
                )
                for row in rows
            ],
            ordered=False,
        )


def _to_schema_3(db: Database[dict[str, Any]]) -> None:
    """Machines that signed in under 0.1 lack what is asked of the best: the bits of their tag, and their stake as a
    number. Rows without those are found for no task with a tag or a stake. Indexes that no query uses any more go.
    """
    workers = db["workers"]
    lacking = {"$or": [{"tag_bits": {"$exists": False}}, {"worth": {"$exists": False}}]}
    writes: list[UpdateOne] = []
    for row in workers.find(lacking, {"tag": 1, "facts.stake": 1, "tag_bits": 1, "worth": 1}):
        writes += _completed(row)
        if len(writes) >= _BATCH:
            workers.bulk_write(writes, ordered=False)
            writes = []
    if writes:
        workers.bulk_write(writes, ordered=False)
    for collection, names in _UNUSED_INDEXES.items():
        for name in names & db[collection].index_information().keys():
            _drop(db, collection, name)


def _to_schema_4(db: Database[dict[str, Any]]) -> None:
    """Machines that signed in under an older release have a RabbitMQ user and queues, which nothing noted: without it
    those of a machine that never comes back would stay for ever.
    """
    db["workers"].update_many({"queues": {"$exists": False}}, {"$set": {"queues": True}})


def _to_schema_5(db: Database[dict[str, Any]]) -> None:
    """Tasks are listed by stage and block, and machines counted by an index alone: the indexes before those go."""
    for collection, name in (("tasks", "by_stage"), ("workers", "silent")):
        if name in db[collection].index_information():
            _drop(db, collection, name)


def drop_unique_index(db: Database[dict[str, Any]]) -> None:
    """A collection that is sharded by `_id` can have no other unique index: tasks of a deal have a plain one,
    which the queries of older releases go by as well.
    """
    if "by_deal" in db["tasks"].index_information():
        _drop(db, "tasks", "by_deal")


def _completed(row: dict[str, Any]) -> list[UpdateOne]:
    """The update that adds the fields a worker's row lacks, from its other fields; a newer sign-in is kept."""
    facts = row.get("facts")
    found = {
        "tag_bits": _read(lambda: to_bytes(row["tag"])),
        "worth": _read(lambda: float(facts["stake"])) if isinstance(facts, dict) else None,
    }
    return [
        UpdateOne({"_id": row["_id"], "tag": row.get("tag"), name: {"$exists": False}}, {"$set": {name: value}})
        for name, value in found.items()
        if name not in row and value is not None
    ]


def _read(value: Callable[[], bytes | float]) -> bytes | float | None:
    """A field's value; None if it cannot be read: reading the whole row then quarantines it."""
    try:
        return value()
    except (BadMessage, LookupError, TypeError, ValueError, AttributeError):
        return None


def _drop(db: Database[dict[str, Any]], collection: str, name: str) -> None:
    """Drop an index, unless another process has."""
    try:
        db[collection].drop_index(name)
    except OperationFailure as error:
        # Another process was faster.
        if error.code != _INDEX_NOT_FOUND:
            raise


#: By collection, indexes of older releases.
_UNUSED_INDEXES = {"workers": {"free"}, "tasks": {"due", "due_by_stage"}}
#: MongoDB's code.
_INDEX_NOT_FOUND = 27
_STEPS: dict[int, Callable[[Database[dict[str, Any]]], None]] = {
    2: _to_schema_2,
    3: _to_schema_3,
    4: _to_schema_4,
    5: _to_schema_5,
    6: drop_unique_index,
}
