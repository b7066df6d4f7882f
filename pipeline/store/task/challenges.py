"""Challenges of tasks for enclaves, as the collection `tasks` has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database

from protocol.types import ZERO_ADDRESS, TaskId, Wallet

#: Rows of a release before have no such field.
_UNTOLD = {"challenge": {"$in": [None, ZERO_ADDRESS]}}


class TaskChallenges:
    """What the secret service told of tasks."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._tasks: Collection[dict[str, Any]] = db["tasks"]

    def untold(self, task_ids: Sequence[TaskId]) -> list[TaskId]:
        """Which of these tasks are open and have no challenge yet."""
        rows = self._tasks.find({"_id": {"$in": list(task_ids)}, "open": True, **_UNTOLD}, {"_id": 1})
        return [TaskId(row["_id"]) for row in rows]

    def record(self, task_id: TaskId, challenge: Wallet) -> None:
        """Note a task's challenge; the first one stays, as assignments with it may have been signed."""
        change = {"challenge": challenge, "why": None, "next_visit": 0.0, "not_before": 0.0}
        self._tasks.update_one({"_id": task_id, **_UNTOLD}, {"$set": change, "$inc": {"version": 1}})

    def record_none(self, task_ids: Sequence[TaskId], why: str) -> None:
        """Note why the secret service told no challenge of these tasks."""
        none = {"_id": {"$in": list(task_ids)}, **_UNTOLD}
        self._tasks.update_many(none, {"$set": {"why": why}, "$inc": {"version": 1}})
