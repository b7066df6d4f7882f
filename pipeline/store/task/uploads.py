"""Results on their way to the pool, as the replicates of the collection `tasks` tell."""

from __future__ import annotations

from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.replicas import UPLOAD_SECONDS
from protocol.types import TaskId, Wallet
from protocol.wire import Step


class Uploads:
    """What the API notes while a result is uploaded, and what `advance` reads of it."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._tasks: Collection[dict[str, Any]] = db["tasks"]

    def record_begun(self, task_id: TaskId, wallet: Wallet, now: float) -> None:
        """Note that a large result of a worker's own replicate is on its way; the first time counts."""
        self._record_once(task_id, wallet, "upload_begun_at", now)

    def record_coming(self, task_id: TaskId, wallet: Wallet, now: float) -> None:
        """Note that the result of a worker's own replicate is still coming, or waits for the worker's other ones."""
        moments = {"replicates.$[own].upload_coming_at": now, "replicates.$[first].upload_begun_at": now}
        self._tasks.update_one(
            {"_id": task_id, "replicates.wallet": wallet},
            {"$set": moments, "$inc": {"version": 1}},
            array_filters=[{"own.wallet": wallet}, {"first.wallet": wallet, "first.upload_begun_at": None}],
        )

    def record_not_stored(self, task_id: TaskId, wallet: Wallet, now: float) -> None:
        """Note that the pool could not store the result of a worker's own replicate; the first time counts."""
        self._record_once(task_id, wallet, "not_stored_at", now)

    def under_way(self, wallet: Wallet, since: float, *, but: TaskId) -> bool:
        """Whether a large result of a worker for another open task than `but` was on its way at `since` or after it
        (Unix seconds); one that began UPLOAD_SECONDS before does not count.
        """
        way = {"$or": [{"link": None}, {f"steps.{Step.UPLOADED}": {"$gte": since}}]}
        large = {"wallet": wallet, "upload_begun_at": {"$gt": since - UPLOAD_SECONDS}, **way}
        query = {"open": True, "_id": {"$ne": but}, "replicates.wallet": wallet, "replicates": {"$elemMatch": large}}
        return self._tasks.find_one(query, {"_id": 1}) is not None

    def _record_once(self, task_id: TaskId, wallet: Wallet, moment: str, now: float) -> None:
        """Set a moment of a worker's own replicate unless it has it already."""
        self._tasks.update_one(
            {"_id": task_id, "replicates": {"$elemMatch": {"wallet": wallet, moment: None}}},
            {"$set": {f"replicates.$.{moment}": now}, "$inc": {"version": 1}},
        )
