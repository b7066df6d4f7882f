"""Collection `logs`: every PoCo event of our deals and tasks, kept as long as those; a reorg marks, it never deletes.

_id = <block hash>:<log index>     so the same log read twice is one row, and its twin in another block is another
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bson.errors import BSONError
from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.store.documents import Document, Documents, Row
from pipeline.store.quarantine import Quarantine, Reader
from protocol.errors import InQuarantine, Unfit
from protocol.poco import events
from protocol.types import BlockHash, BlockNumber, TaskId, Timestamp, TxHash, Wallet

#: What MongoDB's encoder raises for a value that no document can hold.
UNSTORABLE = (BSONError, OverflowError, UnicodeError)

INDEXES = [
    IndexModel([("event.task_id", ASCENDING), ("orphaned", ASCENDING)], name="by_task"),
    IndexModel([("block", ASCENDING)], name="by_block"),
    # Few, and asked for by people.
    IndexModel(
        [("event.worker", ASCENDING), ("block", DESCENDING)],
        name="wrong_by_worker",
        partialFilterExpression={"kind": events.FaultyContribution.__name__},
    ),
]

_KINDS: dict[str, Documents[Any]] = {
    kind.__name__: Documents(kind, versioned=False)
    for kind in (
        events.SchedulerNotice,
        events.TaskInitialize,
        events.TaskContribute,
        events.TaskConsensus,
        events.TaskReveal,
        events.TaskReopen,
        events.TaskFinalize,
        events.TaskClaimed,
        events.AccurateContribution,
        events.FaultyContribution,
    )
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a log stands; its event is stored beside it, by the name of its kind."""

    block_number: BlockNumber
    block_hash: BlockHash
    timestamp: Timestamp
    tx_hash: TxHash
    log_index: int


_PLACES = Documents(_Place, names={"block_number": "block", "timestamp": "at", "tx_hash": "tx"})


class _LogDocuments(Documents[events.Seen]):
    """Events with their places; the kind decides which mapping reads the event."""

    def to_document(self, record: events.Seen) -> Document:
        """An event log as its row."""
        place = _Place(record.block_number, record.block_hash, record.timestamp, record.tx_hash, record.log_index)
        kind = type(record.event).__name__
        return {
            "_id": _key(record),
            "kind": kind,
            "event": _KINDS[kind].to_document(record.event),
            "orphaned": False,
            **_PLACES.to_document(place),
        }

    def to_record(self, row: Row) -> events.Seen:
        """A row as an event log. Raises Unfit for an event of another release."""
        place = _PLACES.to_record(row)
        kind = _KINDS.get(str(row.get("kind")))
        if kind is None:
            raise Unfit(why=f"kind: this release knows no event {row.get('kind')!r}")
        return events.Seen(
            kind.to_record(row.get("event") or {}),
            place.block_number,
            place.block_hash,
            place.timestamp,
            place.tx_hash,
            place.log_index,
        )


LOGS = _LogDocuments(events.Seen)


class Logs:
    """Queries on `logs`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["logs"]
        self.reader = Reader(self._rows, LOGS, Quarantine(db))

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def put(self, seen: Sequence[events.Seen]) -> None:
        """Store logs as part of the present chain, whether or not they were known or orphaned before."""
        if not seen:
            return
        try:
            self._replace([LOGS.to_document(item) for item in seen])
        except UNSTORABLE:
            for item in seen:
                self._put_alone(item)

    def _put_alone(self, item: events.Seen) -> None:
        """Store one log; of one that MongoDB does not take, a stub that has its task asked about on chain."""
        document = LOGS.to_document(item)
        try:
            self._replace([document])
        except UNSTORABLE as error:
            # A stub that cannot be read: its task is then decided by the contract's state.
            event = {"task_id": document["event"].get("task_id")}
            self._replace([{**document, "kind": "unstorable", "event": event, "tx": None}])
            self.reader.quarantine(document["_id"], f"it cannot be stored ({error!r})")

    def _replace(self, documents: Sequence[Document]) -> None:
        """Write rows, new or again."""
        writes = [ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in documents]
        self._rows.bulk_write(writes, ordered=False)

    def of_tasks(self, task_ids: Iterable[TaskId]) -> dict[TaskId, list[events.Seen]]:
        """Logs on the present chain for each of the tasks, in chain order; tasks without any are left out.

        Raises InQuarantine for a task with a log that cannot be read: what its other logs say of it may be wrong.
        """
        found, broken = self.read(task_ids)
        if broken:
            raise InQuarantine(what=f"log of task {min(broken)}")
        return found

    def read(self, task_ids: Iterable[TaskId]) -> tuple[dict[TaskId, list[events.Seen]], set[TaskId]]:
        """(logs for each task as of `of_tasks`, tasks with a log that cannot be read)."""
        return self.read_rows(self._rows.find({"event.task_id": {"$in": list(task_ids)}, "orphaned": False}))

    def read_rows(self, rows: Iterable[Row]) -> tuple[dict[TaskId, list[events.Seen]], set[TaskId]]:
        """As `read`, from rows of this collection that came with their tasks (`Tasks.load_with_logs`)."""
        found: dict[TaskId, list[events.Seen]] = defaultdict(list)
        broken: set[TaskId] = set()
        for row in rows:
            task_id = TaskId(row["event"]["task_id"])
            read = self.reader.each([row])
            found[task_id] += read
            if not read:
                broken.add(task_id)
        for seen in found.values():
            seen.sort(key=lambda item: (item.block_number, item.log_index))
        return dict(found), broken

    def wrong_votes(self, worker: Wallet, limit: int) -> list[events.Seen]:
        """The votes with which a machine lost its stake, newest first; at most `limit`."""
        wrong = {"event.worker": worker, "kind": events.FaultyContribution.__name__, "orphaned": False}
        return self.reader.each(self._rows.find(wrong).sort("block", DESCENDING).limit(limit))

    def orphan_above(self, block: BlockNumber) -> list[TaskId]:
        """Mark logs above `block` as gone from the chain; returns the tasks they were about."""
        above = {"block": {"$gt": block}}
        tasks = self._rows.distinct("event.task_id", above)
        self._rows.update_many(above, {"$set": {"orphaned": True}})
        return [TaskId(task) for task in tasks if task is not None]

    def logs_between(self, first: BlockNumber, last: BlockNumber) -> list[events.Seen]:
        """Logs of blocks first … last on the present chain."""
        return self.reader.each(self._rows.find({"block": {"$gte": first, "$lte": last}, "orphaned": False}))

    def initialized(self, task_ids: Iterable[TaskId]) -> set[TaskId]:
        """Which of these tasks were initialized on the present chain."""
        begun = {"event.task_id": {"$in": list(task_ids)}, "orphaned": False, "kind": events.TaskInitialize.__name__}
        rows = self._rows.find(begun, {"event.task_id": 1})
        return {TaskId(row["event"]["task_id"]) for row in rows}

    def orphan(self, seen: Sequence[events.Seen]) -> None:
        """Mark these logs as not of the present chain."""
        self._rows.update_many({"_id": {"$in": [_key(item) for item in seen]}}, {"$set": {"orphaned": True}})

    def count(self) -> int:
        """About how many logs are stored, orphaned ones too."""
        return self._rows.estimated_document_count()

    def since(self, block: BlockNumber) -> list[TaskId]:
        """Tasks with a log in or above `block` on the present chain."""
        tasks = self._rows.distinct("event.task_id", {"block": {"$gte": block}, "orphaned": False})
        return [TaskId(task) for task in tasks if task is not None]


def _key(seen: events.Seen) -> str:
    """A log's key: its block and its place there."""
    return f"{seen.block_hash}:{seen.log_index}"
