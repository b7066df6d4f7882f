"""Collection `logs`: every PoCo event of our deals and tasks, kept as long as those; a reorg marks, it never deletes.

_id = <block hash>:<log index>         so the same log read twice is one row, and its twin in another block is another
_id = <block hash>:<index>,<index>,…   what happened to one task in one block: its last event as a row of its own has
                                       it, and in `before` the ones before it

A process of the release before reads the last event of such a row. For the rest it asks the contract, as it does for
events that a node hid.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bson.errors import BSONError
from pymongo import ASCENDING, DESCENDING, DeleteMany, IndexModel, ReplaceOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from config.connections.mongodb import may_be_undone
from pipeline.store.documents import Document, Documents, Row
from pipeline.store.quarantine import Quarantine, Reader
from protocol.errors import InQuarantine, Unfit
from protocol.poco import events
from protocol.types import BlockHash, BlockNumber, TaskId, Timestamp, TxHash, Wallet

#: MongoDB's code of a key that is there already.
_DUPLICATE = 11000
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


#: Kinds that always have rows of their own: by these a task is known before its deal is, and lost stakes are listed.
_ALONE = (events.SchedulerNotice, events.TaskInitialize, events.FaultyContribution)
#: Fields of each event in a row; the others are its block's.
_OWN = ("kind", "event", "tx", "log_index")


@dataclass(frozen=True, slots=True)
class _Place:
    """A log's place on chain; its event is stored beside it, under the name of its kind."""

    block_number: BlockNumber
    block_hash: BlockHash
    timestamp: Timestamp
    tx_hash: TxHash
    log_index: int


_PLACES = Documents(_Place, names={"block_number": "block", "timestamp": "at", "tx_hash": "tx"})


@dataclass(frozen=True, slots=True)
class Together:
    """Events of one block that share a row, by index."""

    seen: tuple[events.Seen, ...]


class _LogDocuments(Documents[Together]):
    """Events with their places; the kind of each decides which mapping reads it."""

    def to_document(self, record: Together) -> Document:
        """The row of these events: fields of the last one at its top, the others in the list `before`."""
        *before, last = map(_own, record.seen)
        document = {"_id": _key(record.seen), "orphaned": False, **last}
        if before:
            document["before"] = [{name: item[name] for name in _OWN} for item in before]
        return document

    def to_record(self, row: Row) -> Together:
        """The events of a row. Raises Unfit."""
        before = row.get("before", [])
        if not isinstance(before, list) or not all(isinstance(item, dict) for item in before):
            raise Unfit(why="before: it is no list of events")
        block = {name: value for name, value in row.items() if name not in _OWN}
        return Together(tuple(_seen(block | item) for item in (*before, {name: row.get(name) for name in _OWN})))


def _own(seen: events.Seen) -> Document:
    """The stored fields of one event: its kind, its values, and its place on the chain."""
    place = _Place(seen.block_number, seen.block_hash, seen.timestamp, seen.tx_hash, seen.log_index)
    kind = type(seen.event).__name__
    return {"kind": kind, "event": _KINDS[kind].to_document(seen.event), **_PLACES.to_document(place)}


def _seen(row: Row) -> events.Seen:
    """The event whose fields these are. Raises Unfit."""
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


LOGS = _LogDocuments(Together)


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
            self._replace([LOGS.to_document(part) for part in _parts(seen)])
        except UNSTORABLE:
            for item in seen:
                self._put_alone(item)

    def _put_alone(self, item: events.Seen) -> None:
        """Store one log; if MongoDB does not take it, a stub, at which the task's state is read from the contract."""
        document = LOGS.to_document(Together((item,)))
        try:
            self._replace([document])
        except UNSTORABLE as error:
            # A stub that cannot be read: its task is then decided by the contract's state.
            event = {"task_id": document["event"].get("task_id")}
            self._replace([{**document, "kind": "unstorable", "event": event, "tx": None}])
            self.reader.quarantine(document["_id"], f"it cannot be stored ({error!r})")

    def _replace(self, documents: Sequence[Document]) -> None:
        """Write rows, new or again."""
        # The task, which a row never changes, says on which shard it is (`pipeline.store.database.sharding`).
        places = [{"_id": each["_id"], "event.task_id": each["event"].get("task_id")} for each in documents]
        writes = [ReplaceOne(place, each, upsert=True) for place, each in zip(places, documents, strict=True)]
        try:
            self._rows.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            if {each["code"] for each in details["writeErrors"]} != {_DUPLICATE} or may_be_undone(error):
                raise
            # Another process was faster, or a row with that key is damaged and does not tell its task any more.
            damaged = [{**place, "event.task_id": {"$ne": place["event.task_id"]}} for place in places]
            self._rows.bulk_write([DeleteMany(each) for each in damaged], ordered=False)
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
        found: dict[TaskId, dict[tuple[int, int], events.Seen]] = defaultdict(dict)
        broken: set[TaskId] = set()
        for row in rows:
            task_id = TaskId(row["event"]["task_id"])
            read = self._each([row])
            # One that was stored alone and together with others is one.
            found[task_id] |= {(item.block_number, item.log_index): item for item in read}
            if not read:
                broken.add(task_id)
        return {task_id: [item for _, item in sorted(seen.items())] for task_id, seen in found.items()}, broken

    def wrong_votes(self, worker: Wallet, limit: int) -> list[events.Seen]:
        """The votes with which a machine lost its stake, newest first; at most `limit`."""
        wrong = {"event.worker": worker, "kind": events.FaultyContribution.__name__, "orphaned": False}
        return self._each(self._rows.find(wrong).sort("block", DESCENDING).limit(limit))

    def orphan_above(self, block: BlockNumber) -> list[TaskId]:
        """Mark logs above `block` as gone from the chain; returns the tasks they were about."""
        above = {"block": {"$gt": block}}
        tasks = self._rows.distinct("event.task_id", above)
        self._rows.update_many(above, {"$set": {"orphaned": True}})
        return [TaskId(task) for task in tasks if task is not None]

    def logs_between(self, first: BlockNumber, last: BlockNumber) -> list[events.Seen]:
        """Logs of blocks first … last on the present chain."""
        return self._each(self._rows.find({"block": {"$gte": first, "$lte": last}, "orphaned": False}))

    def initialized(self, task_ids: Iterable[TaskId]) -> set[TaskId]:
        """Which of these tasks were initialized on the present chain."""
        begun = {"event.task_id": {"$in": list(task_ids)}, "orphaned": False, "kind": events.TaskInitialize.__name__}
        rows = self._rows.find(begun, {"event.task_id": 1})
        return {TaskId(row["event"]["task_id"]) for row in rows}

    def orphan(self, seen: Sequence[events.Seen]) -> None:
        """Mark these logs as not of the present chain; those that share a row with one of them get rows of their own,
        before it is marked.
        """
        gone = {_key((item,)) for item in seen}
        shared = {"block": {"$in": sorted({item.block_number for item in seen})}, "before": {"$exists": True}}
        for row in self._rows.find({**shared, "orphaned": False}):
            alone = list(_taken_apart(row))
            if gone & {single["_id"] for single in alone}:
                stays = [single for single in alone if single["_id"] not in gone]
                if stays:
                    self._replace(stays)
                gone.add(row["_id"])
        self._rows.update_many({"_id": {"$in": sorted(gone)}}, {"$set": {"orphaned": True}})

    def _each(self, rows: Iterable[Row]) -> list[events.Seen]:
        """All events of those rows that can be read."""
        return [item for together in self.reader.each(rows) for item in together.seen]

    def count(self) -> int:
        """About how many rows are stored, orphaned ones too."""
        return self._rows.estimated_document_count()

    def since(self, block: BlockNumber) -> list[TaskId]:
        """Tasks with a log in or above `block` on the present chain."""
        tasks = self._rows.distinct("event.task_id", {"block": {"$gte": block}, "orphaned": False})
        return [TaskId(task) for task in tasks if task is not None]


def _parts(seen: Iterable[events.Seen]) -> list[Together]:
    """The events as they share rows: those of one task in one block, except kinds that have rows of their own."""
    parts: dict[tuple[object, ...], list[events.Seen]] = defaultdict(list)
    for item in seen:
        event = item.event
        together = item.place if isinstance(event, _ALONE) else (item.block_hash, event.task_id)
        parts[together].append(item)
    return [Together(tuple(sorted(part, key=lambda item: item.log_index))) for part in parts.values()]


def _key(seen: Sequence[events.Seen]) -> str:
    """`_id` of the row of these events."""
    return f"{seen[0].block_hash}:{','.join(str(item.log_index) for item in seen)}"


def _taken_apart(row: Row) -> Iterator[Document]:
    """A row of several events as one row for each, by the places in its key; of a damaged one, those that are there."""
    common = {name: value for name, value in row.items() if name != "before"}
    block_hash, _, indexes = str(row["_id"]).partition(":")
    *first, last = indexes.split(",")
    before = row["before"] if isinstance(row["before"], list) else []
    for index, own in (*zip(first, before, strict=False), (last, {})):
        if isinstance(own, dict):
            yield {**common, **own, "_id": f"{block_hash}:{index}"}
