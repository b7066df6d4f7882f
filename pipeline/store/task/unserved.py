"""Queries on `tasks` for those for enclaves that are not initialized before a machine can serve their tag."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.enclaves import MOST_TRUST
from pipeline.store.task.waiting import COLLECTION
from protocol.types import Hash32

#: The query for tasks that may be served: those at the trust of tasks for enclaves.
_FIT = {"unserved": True, "trust": MOST_TRUST}
INDEXES = [
    IndexModel([("trust", ASCENDING), ("tag", ASCENDING)], name="unserved", partialFilterExpression={"unserved": True})
]


class UnservedTasks:
    """Queries on such tasks: requesters choose tags, and there may be many tasks of each."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db[COLLECTION]

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def tags(self, limit: int, after: str) -> list[Hash32]:
        """Their tags, each once, at most `limit`: from the first behind `after` on, and then from the lowest."""
        found: list[Hash32] = []
        bounds: tuple[tuple[str, dict[str, str]], ...] = ((after, {}), ("", {"$lte": after}))
        for beginning, bound in bounds:
            last = beginning
            while len(found) < limit:
                query = _FIT | {"tag": {"$gt": last} | bound}
                row = self._rows.find_one(query, {"tag": 1}, sort=[("tag", ASCENDING)], hint="unserved")
                if row is None:
                    break
                last = row["tag"]
                found.append(Hash32(last))
        return found

    def take_up(self, tag: Hash32, now: float) -> int:
        """Have those of this tag initialized from now on; how many."""
        served = {"unserved": False, "not_before": 0.0, "next_visit": now}
        return self._rows.update_many(_FIT | {"tag": tag}, {"$set": served, "$inc": {"version": 1}}).modified_count
