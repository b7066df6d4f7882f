"""Collection `pool`: whether the pool holds (`pipeline.domain.condition.holding`), as the API finds it, for everybody.

Held for HOLD_SECONDS at a time by the database's own clock: a process that is killed leaves no hold behind, and a clock
that is wrong, which is a reason to hold, decides nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pymongo
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.store.documents import Row
from pipeline.store.pause import PAUSE

#: Seconds for which a hold lasts unless it is renewed: several health checks of the API.
HOLD_SECONDS = 60.0
#: Seconds that the database may take: if it does not answer, nothing is begun anyway.
ANSWER_SECONDS = 3.0
_ROW = "hold"
#: The collection's name.
POOL = "pool"


@dataclass(frozen=True, slots=True)
class Begins:
    """What keeps the pool from new work: the operator has paused it; something that work needs is away."""

    paused: bool = False
    holds: bool = False

    @property
    def nothing(self) -> bool:
        """Whether the pool begins no task now: it is paused, or it holds."""
        return self.paused or self.holds


class HoldSwitch:
    """Whether new work may be begun, as far as the servers allow."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db[POOL]

    def state(self) -> str | None:
        """Why nothing new is begun now; None: the pool takes work. Raises PyMongoError."""
        row = self._rows.find_one({"_id": _ROW, "$expr": {"$gt": ["$until", "$$NOW"]}})
        return None if row is None else str(row.get("why") or "no reason is known")

    def has_held(self, seconds: float) -> bool:
        """Whether the pool holds, and has for at least `seconds`. Raises PyMongoError."""
        # A hold that a process of an older release began has no beginning.
        begun = {"$lte": [{"$ifNull": ["$since", "$$NOW"]}, {"$subtract": ["$$NOW", seconds * 1000]}]}
        return self._rows.find_one({"_id": _ROW, "$expr": {"$and": [{"$gt": ["$until", "$$NOW"]}, begun]}}) is not None

    def begins(self) -> Begins:
        """Whether anything keeps the pool from new work, the operator's pause too: one query. Raises PyMongoError."""
        return begins_from(self._rows.aggregate(begins_stages()))

    def hold(self, why: str, by: str) -> None:
        """Begin nothing new for HOLD_SECONDS; `by`: the process that found out. Raises PyMongoError."""
        until = {"$add": ["$$NOW", HOLD_SECONDS * 1000]}
        since = {"$cond": [{"$gt": ["$until", "$$NOW"]}, {"$ifNull": ["$since", "$$NOW"]}, "$$NOW"]}
        found = {"why": {"$literal": why}, "by": {"$literal": by}, "until": until, "since": since}
        with pymongo.timeout(ANSWER_SECONDS):
            self._rows.update_one({"_id": _ROW}, [{"$set": found}], upsert=True)

    def try_write(self) -> None:
        """Write a row as a test, since a full disk or a secondary still answers reads. Raises PyMongoError."""
        self._rows.update_one({"_id": "written"}, {"$currentDate": {"at": True}}, upsert=True)

    def release(self, by: str) -> None:
        """End a hold that this process found; one that another process finds lasts. Raises PyMongoError."""
        with pymongo.timeout(ANSWER_SECONDS):
            self._rows.delete_one({"_id": _ROW, "by": by})


def begins_stages() -> list[dict[str, Any]]:
    """The stages that find what `begins_from` reads, also within a query of another collection."""
    return [{"$match": {"_id": {"$in": [_ROW, PAUSE]}}}, {"$project": {"holds": {"$gt": ["$until", "$$NOW"]}}}]


def begins_from(rows: Iterable[Row]) -> Begins:
    """What keeps the pool from new work, by the rows that `begins_stages` found."""
    found = {row["_id"]: row for row in rows}
    return Begins(paused=PAUSE in found, holds=bool(found.get(_ROW, {}).get("holds")))


def of_pool(row: Row) -> bool:
    """Whether this row of a combined query came from `begins_stages`."""
    return "holds" in row
