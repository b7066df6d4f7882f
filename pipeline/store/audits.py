"""The row `audit` in `cursors`: what the last audit of database, chain and servers found, and what its first reading
found that a second one has still to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.audit.findings import Difference, Unasked

_ROW = "audit"
#: Differences stored of one audit: beyond so many, more of them change nothing that a person would do first.
MOST = 100


@dataclass(frozen=True, slots=True)
class LastAudit:
    """The last audit that ended. `at`: Unix seconds; `differences`: how many in all; `first`: the first of them."""

    at: float
    differences: int
    first: str
    unasked: tuple[str, ...]


class Audits:
    """What one audit leaves for the next one and for `/health`, whichever process runs it."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._cursors: Collection[dict[str, Any]] = db["cursors"]

    def begin(self, now: float, due_before: float, again_before: float, lease: float) -> list[Difference] | None:
        """Begin a reading at `now` (Unix seconds), for `lease` seconds; returns what the first reading suspected,
        nothing if this is the first one.

        None if the last audit is not older than `due_before`, or than `again_before` if it found a difference or could
        not ask for something, or another process is doing it.
        """
        self._cursors.update_one({"_id": _ROW}, {"$setOnInsert": {"at": 0.0, "lease_until": 0.0}}, upsert=True)
        unclear = {"$or": [{"differences": {"$gt": 0}}, {"unasked.0": {"$exists": True}}], "at": {"$lt": again_before}}
        due = {"_id": _ROW, "lease_until": {"$lte": now}, "$or": [{"at": {"$lt": due_before}}, unclear]}
        row = self._cursors.find_one_and_update(due, {"$set": {"lease_until": now + lease}})
        if row is None:
            return None
        return [Difference(kind, subject, says, "") for kind, subject, says in row.get("suspected") or ()]

    def suspect(self, found: Sequence[Difference]) -> None:
        """Store what a first reading found, for the second one, which may begin now."""
        suspected = [[item.kind, item.subject, item.says] for item in found[:MOST]]
        self._cursors.update_one({"_id": _ROW}, {"$set": {"suspected": suspected, "lease_until": 0.0}})

    def note(self, now: float, found: Sequence[Difference], unasked: Sequence[Unasked]) -> None:
        """Store what an audit that ended at `now` (Unix seconds) found."""
        first = f"{found[0].kind} {found[0].subject}: {found[0].says}" if found else ""
        row = {
            "at": now,
            "lease_until": 0.0,
            "suspected": [],
            "differences": len(found),
            "first": first,
            "unasked": [f"{item.what} ({item.why})" for item in unasked],
        }
        self._cursors.update_one({"_id": _ROW}, {"$set": row}, upsert=True)

    def last(self) -> LastAudit | None:
        """What the last audit found; None before the first has ended."""
        row = self._cursors.find_one({"_id": _ROW, "at": {"$gt": 0}})
        if row is None:
            return None
        return LastAudit(
            float(row["at"]), int(row.get("differences", 0)), str(row.get("first", "")), tuple(row.get("unasked") or ())
        )
