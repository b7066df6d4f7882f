"""Which tasks wait for machines, and the indexes by which they are found: they may be few behind many."""

from __future__ import annotations

from typing import Any, Final

from pymongo import ASCENDING, IndexModel

#: The collection's name.
COLLECTION: Final = "tasks"
#: The order in which tasks are given out.
MOST_URGENT_FIRST = {"contribution_deadline": ASCENDING}
#: The query for tasks that a worker was given, and the index of those that want more workers.
BEGUN: dict[str, Any] = {"replicates.0": {"$exists": True}}
BEGUN_TURN: Final = "begun_turn"

INDEXES = [
    IndexModel(
        [("contribution_deadline", ASCENDING), ("not_before", ASCENDING)],
        name="waiting_turn",
        partialFilterExpression={"wants": {"$gt": 0}},
    ),
    IndexModel(
        [("contribution_deadline", ASCENDING), ("not_before", ASCENDING)],
        name=BEGUN_TURN,
        partialFilterExpression={"wants": {"$gt": 0}, **BEGUN},
    ),
]


def waiting(now: float) -> dict[str, Any]:
    """The query for tasks that want replicates, still take votes and were not passed over lately (Unix seconds)."""
    return {"wants": {"$gt": 0}, "contribution_deadline": {"$gt": now}, "not_before": {"$lte": now}}
