"""Collection `pins`: results in IPFS, when to check each again, and whether it is pinned yet.

stored ──► trust 1: not pinned  ──its task is completed with it──► pinned ──SLUICE_KEEP_RESULTS_DAYS──► unpinned, gone
       └─► voted: pinned at once  └─it failed, or with another──► unpinned, gone, for the node's own clean-up
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database

from protocol.types import TaskId

INDEXES = [IndexModel([("look_at", ASCENDING)], name="due"), IndexModel([("cid", ASCENDING)], name="by_cid")]


@dataclass(frozen=True, slots=True)
class Pin:
    """One task's result. `stored_at`: Unix seconds."""

    cid: str
    task_id: TaskId
    pinned: bool
    stored_at: float


class Pins:
    """Queries on `pins`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["pins"]

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def put(self, pin: Pin, look_at: float) -> None:
        """Store that a result is in IPFS, to be checked again at `look_at`; a known one stays as it is."""
        row = {"cid": pin.cid, "task": pin.task_id, "pinned": pin.pinned, "at": pin.stored_at, "look_at": look_at}
        self._rows.update_one({"_id": _id(pin)}, {"$setOnInsert": row}, upsert=True)

    def due(self, now: float, limit: int) -> list[Pin]:
        """Results to check now, those that have waited longest first."""
        rows = self._rows.find({"look_at": {"$lte": now}}).sort("look_at", ASCENDING).limit(limit)
        return [Pin(row["cid"], TaskId(row["task"]), row["pinned"], row["at"]) for row in rows]

    def newest_pinned(self, limit: int) -> list[Pin]:
        """Results that are pinned, those to be looked at last first: the newest, since all are kept equally long."""
        # By the index on `look_at`.
        rows = self._rows.find({"look_at": {"$gt": 0.0}, "pinned": True}).sort("look_at", DESCENDING).limit(limit)
        return [Pin(row["cid"], TaskId(row["task"]), row["pinned"], row["at"]) for row in rows]

    def keep(self, pins: Sequence[Pin], seconds: float) -> None:
        """Note that these results are pinned, to be looked at next so many seconds after each was stored."""
        kept = {"pinned": True, "look_at": {"$add": ["$at", seconds]}}
        if pins:
            self._rows.update_many({"_id": {"$in": [_id(pin) for pin in pins]}}, [{"$set": kept}])

    def look_again(self, pin: Pin, at: float, *, pinned: bool) -> None:
        """Note whether a result is pinned, and when to check it next."""
        self._rows.update_one({"_id": _id(pin)}, {"$set": {"pinned": pinned, "look_at": at}})

    def forget(self, pin: Pin) -> None:
        """Delete the record of a result that is not kept any more."""
        self._rows.delete_one({"_id": _id(pin)})

    def kept_for_others(self, pin: Pin) -> bool:
        """Whether the same content is pinned for another task too."""
        query = {"cid": pin.cid, "pinned": True, "_id": {"$ne": _id(pin)}}
        return self._rows.find_one(query, {"_id": 1}) is not None


def _id(pin: Pin) -> str:
    """The key of a pin's row."""
    return f"{pin.task_id}:{pin.cid}"
