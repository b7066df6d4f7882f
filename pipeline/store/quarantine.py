"""Collection `quarantine`: rows that cannot be used, each with its reason, so that all others go on.

    a row does not fit ──► add ──► wait ──► due: read again ──► fits: release
                                    ▲                      └──► does not: waits twice as long
                                    └── a new release, or `sluice quarantine retry`: due at once

    `sluice quarantine accept`: it waits on, and is no longer counted; with another reason it is counted again

Sweep, ingest, assignment, watcher and API skip such a row. An entry changes nothing by itself: the row
stays where it is, so nothing is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, TypeVar

import structlog
from pymongo import ASCENDING, IndexModel, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from config.connections.mongodb import may_be_undone
from config.metrics import QUARANTINED
from pipeline.store.documents import Documents, Row, newer
from protocol.errors import InQuarantine, Unfit

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: Seconds until a row is read again: the first time, and at most. A transient cause ends within minutes; one that only
#: a new release cures costs four reads a day.
FIRST_WAIT, LONGEST_WAIT = 60.0, 6 * 3600.0
#: Doublings after which the wait is the longest.
_MOST_DOUBLINGS = 9
#: Seconds that an entry is kept after its release, so that a row that fails again waits longer each time.
KEEP_SECONDS = 24 * 3600.0
#: How the reason begins for a row that a later release stored and this one cannot read.
LATER_RELEASE = "a later release stored it"
#: Most characters of a reason.
_WORDS = 500
RELEASE = version("sluice")

INDEXES = [
    IndexModel([("until", ASCENDING)], name="due", partialFilterExpression={"held": True}),
    # Each sweep forgets some of those: there may be as many as rows were ever quarantined within KEEP_SECONDS.
    IndexModel([("until", ASCENDING)], name="released", partialFilterExpression={"held": False}),
]

#: What is quarantined now. The bound on `until` lets its index serve.
_HELD: dict[str, Any] = {"held": True, "until": {"$gte": 0.0}}


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One quarantined row. Times are Unix seconds."""

    collection: str
    #: The row's `_id`.
    key: Any
    why: str
    since: float
    #: When it is read again.
    until: float
    #: How often it was quarantined.
    times: int
    #: Whether an operator has accepted it: nothing can be done, and it is not reported any more.
    accepted: bool = False


class Quarantine:
    """Queries on `quarantine`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["quarantine"]

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def add(
        self,
        collection: str,
        rows: Sequence[tuple[Any, str]],
        now: float | None = None,
        *,
        longest: float = LONGEST_WAIT,
    ) -> list[float]:
        """Quarantine rows, each a key and why; returns when each is due. One that waits already stays as it is.

        `longest`: seconds that each waits at most.
        """
        now = time.time() if now is None else now
        names = [f"{collection}:{key}" for key, _ in rows]
        found = {row["_id"]: row for row in self._rows.find({"_id": {"$in": names}})}
        writes, dues = [], []
        for name, (key, why) in zip(names, rows, strict=True):
            before = found.get(name, {"times": 0, "held": False, "until": 0.0, "why": ""})
            until = float(before["until"])
            if not before["held"] or until <= now:
                until = now + min(longest, FIRST_WAIT * 2.0 ** min(before["times"], _MOST_DOUBLINGS))
                since = before["since"] if before["held"] else now
                fields = {"collection": collection, "key": key, "why": why[:_WORDS], "since": since, "until": until}
                # What was accepted is this reason, and no other.
                fields["accepted"] = before["held"] and before.get("accepted", False) and before["why"] == fields["why"]
                change = {"$set": {**fields, "held": True, "by": RELEASE}, "$inc": {"times": 1}}
                writes.append(UpdateOne({"_id": name}, change, upsert=True))
                if not before["held"]:
                    self._log(collection, key, why)
            dues.append(until)
        if writes:
            self._rows.bulk_write(writes, ordered=False)
        return dues

    def _log(self, collection: str, key: object, why: str) -> None:
        """Count and log that a row was quarantined."""
        QUARANTINED.labels(collection).inc()
        log.error(
            "A row cannot be used and was quarantined; see `sluice quarantine ls`.",
            action="quarantined",
            collection=collection,
            key=str(key),
            why=why[:_WORDS],
        )

    def release(self, collection: str, key: object) -> None:
        """Record that a row can be used again, so that it is quarantined no longer."""
        name = f"{collection}:{key}"
        if self._rows.update_one({"_id": name, "held": True}, {"$set": {"held": False}}).modified_count:
            log.info("A row can be used again.", action="quarantine_released", collection=collection, key=str(key))

    def entries_due(self, now: float, limit: int) -> list[Quarantined]:
        """Rows to be read again, longest due first."""
        rows = self._rows.find({"held": True, "until": {"$lte": now}}).sort("until", ASCENDING).limit(limit)
        return [_entry(row) for row in rows]

    def forget_released(self, now: float) -> None:
        """Delete entries that were released long ago."""
        self._rows.delete_many({"held": False, "until": {"$lt": now - KEEP_SECONDS}})

    def entries(self, limit: int = 1000) -> list[Quarantined]:
        """Quarantined rows, in the order in which they are read again."""
        return [_entry(row) for row in self._rows.find({"held": True}).sort("until", ASCENDING).limit(limit)]

    def counts(self) -> dict[str, int]:
        """How many rows of each collection are quarantined that nobody has accepted."""
        found = self._rows.aggregate([{"$match": _HELD | {"accepted": {"$ne": True}}}, {"$sortByCount": "$collection"}])
        return {row["_id"]: row["count"] for row in found}

    def count(self, collection: str | None = None, key: str | None = None) -> int:
        """How many rows are quarantined: all, those of a collection, or one."""
        return self._rows.count_documents(_wanted(collection, key))

    def make_due(self, collection: str | None = None, key: str | None = None) -> int:
        """Have rows read again at the next sweep: all, those of a collection, or one; returns how many."""
        return self._rows.update_many(_wanted(collection, key), {"$set": {"until": 0.0}}).matched_count

    def accept(self, collection: str | None, key: str | None, *, accepted: bool) -> int:
        """Mark rows as accepted by the operator, or no longer; accepted ones are not reported. Returns how many."""
        return self._rows.update_many(_wanted(collection, key), {"$set": {"accepted": accepted}}).matched_count

    def new_release(self) -> int:
        """Have rows that other releases quarantined read again; returns how many rows."""
        others = _HELD | {"by": {"$ne": RELEASE}}
        return self._rows.update_many(others, {"$set": {"until": 0.0, "by": RELEASE}}).matched_count


def _wanted(collection: str | None, key: str | None) -> dict[str, Any]:
    """Filter for what is quarantined: all, of a collection, or one row."""
    named = {"collection": collection, "key": key}
    return _HELD | {name: value for name, value in named.items() if value is not None}


def _entry(row: Row) -> Quarantined:
    """The quarantined row that an entry of this collection is about, with its reason."""
    place = row["collection"], row["key"]
    return Quarantined(*place, row["why"], row["since"], row["until"], row["times"], row.get("accepted", False))


class Reader(Generic[T]):
    """Reads rows of one collection; those that do not fit are quarantined."""

    def __init__(
        self,
        rows: Collection[dict[str, Any]],
        documents: Documents[T],
        quarantine: Quarantine,
        put_off: Callable[[float], Mapping[str, float]] = lambda _: {},
    ) -> None:
        """`put_off`: what keeps queries from finding a row until then, so that it displaces no other."""
        self._rows, self._documents, self._quarantine = rows, documents, quarantine
        self._put_off = put_off

    def each(self, found: Iterable[Row]) -> list[T]:
        """The records of those rows that can be read; the others are quarantined and left out."""
        records: list[T] = []
        broken: list[tuple[Any, str]] = []
        later: list[tuple[Any, str]] = []
        for row in found:
            try:
                records.append(self._documents.to_record(row))
            except Unfit as error:
                if newer(row):
                    later.append((row["_id"], f"{LATER_RELEASE}: {error}"))
                else:
                    broken.append((row["_id"], str(error)))
        self._quarantine_rows(broken)
        # Processes of that release, which read it, are not to be kept from it.
        self._quarantine_rows(later, longest=FIRST_WAIT)
        return records

    def one(self, row: Row | None) -> T | None:
        """The record of a row, None if there is none. Raises InQuarantine."""
        if row is None:
            return None
        records = self.each([row])
        if not records:
            raise InQuarantine(what=f"row {row['_id']} of {self._rows.name}")
        return records[0]

    def write(self, writes: Sequence[UpdateOne]) -> tuple[int, int]:
        """Make updates of single rows, by `_id` each; returns how many rows matched and how many changed.

        A row that MongoDB cannot update for what is in it is quarantined, and the others are still updated.
        """
        if not writes:
            return 0, 0
        try:
            result = self._rows.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            refused = [(problem.get("op", {}).get("q", {}).get("_id"), problem) for problem in details["writeErrors"]]
            if may_be_undone(error) or any(key is None for key, _ in refused):
                raise
            self._quarantine_rows(
                [(key, f"it cannot be updated ({problem.get('errmsg')})") for key, problem in refused]
            )
            return int(details["nMatched"]), int(details["nModified"])
        return result.matched_count, result.modified_count

    def quarantine(self, key: object, why: str) -> None:
        """Quarantine the row with this key; `why` is what operators see."""
        self._quarantine_rows([(key, why)])

    def _quarantine_rows(self, rows: Sequence[tuple[Any, str]], *, longest: float = LONGEST_WAIT) -> None:
        """Quarantine rows with the reason of each, and put them off in their own collection."""
        if not rows:
            return
        dues = self._quarantine.add(self._rows.name, rows, longest=longest)
        writes = [
            UpdateOne({"_id": key}, {"$set": dict(self._put_off(until))})
            for (key, _), until in zip(rows, dues, strict=True)
            if self._put_off(until)
        ]
        if writes:
            self._rows.bulk_write(writes, ordered=False)

    def reread(self, key: object) -> None:
        """Read a quarantined row again: released if it fits now, else it waits longer."""
        row = self._rows.find_one({"_id": key})
        if row is not None and not self.each([row]):
            return
        fields = self._put_off(0.0)
        if fields:
            self._rows.update_one({"_id": key}, {"$set": dict(fields)})
        self._quarantine.release(self._rows.name, key)
