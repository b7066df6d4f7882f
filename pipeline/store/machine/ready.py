"""Machines that can take one more task, the best first; and what each round of matching reads before anything else."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.records import WorkerRecord
from pipeline.store.hold import POOL, Begins, begins_from, begins_stages, of_pool
from pipeline.store.machine.documents import WORKERS
from pipeline.store.quarantine import Quarantine, Reader

#: What a worker must be to get tasks, as far as its row tells: what the index is about, and what else.
READY: dict[str, Any] = {"facts.funded": True, "banned": False, "lost": False, "free": {"$gt": 0}}
#: The best first: right on chain most often, then most stake; among equals by lot, anew each time facts are read.
BEST_FIRST = [("successes", DESCENDING), ("worth", DESCENDING), ("lot", ASCENDING)]


def ready(seen_after: float, now: float) -> dict[str, Any]:
    """The query for workers heard of since `seen_after` that can take one more task: with a slot free, connected to
    RabbitMQ, not banned, stopped or cooling down, with native token for gas when last read.
    """
    present = {"away": {"$ne": True}, "disconnected_at": None}
    return READY | {"seen_at": {"$gte": seen_after}, "rest_until": {"$lte": now}} | present


class Rounds:
    """The first query of a round of matching."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["workers"]
        self._reader = Reader(self._rows, WORKERS, Quarantine(db), lambda until: {"rest_until": until})

    def begin(self, seen_after: float, limit: int, now: float) -> tuple[list[WorkerRecord], Begins]:
        """The best `limit` workers as of `ready`, and what keeps the pool from giving them anything. Unix seconds."""
        stages: list[dict[str, Any]] = [
            {"$match": ready(seen_after, now)},
            {"$sort": dict(BEST_FIRST)},
            {"$limit": limit},
            {"$unionWith": {"coll": POOL, "pipeline": begins_stages()}},
        ]
        rows = list(self._rows.aggregate(stages))
        return self._reader.each(row for row in rows if not of_pool(row)), begins_from(filter(of_pool, rows))
