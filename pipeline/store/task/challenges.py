"""Challenges of tasks for enclaves, as the collection `tasks` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.records import LIVE, ReplicateState
from protocol.results.error_result import LOST_CHALLENGE
from protocol.types import ZERO_ADDRESS, Hash32, TaskId, Wallet

#: Rows of a release before have no such field.
_UNTOLD = {"challenge": {"$in": [None, ZERO_ADDRESS]}}
#: A replicate whose machine found that the secret service does not have its challenge, and which holds nothing more.
_FOUND_LOST = {
    "state": str(ReplicateState.FAILED),
    "cause": {"$regex": f"^{LOST_CHALLENGE}(:|$)"},
    "holds_slot": False,
    "pledged": False,
}
_LOST = {"replicates": {"$elemMatch": _FOUND_LOST}}
_AWAITED = {"$or": [_UNTOLD, _LOST]}
_IDLE = {"replicates.state": {"$nin": sorted(map(str, LIVE))}}


@dataclass(frozen=True, slots=True)
class Awaited:
    """What is known of a task whose challenge is awaited."""

    tag: Hash32
    #: When it was decided to ask for it; Unix seconds.
    asked_at: float


class TaskChallenges:
    """Queries on the challenges of tasks, and updates with the secret service's answers."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._tasks: Collection[dict[str, Any]] = db["tasks"]

    def awaited(self, task_ids: Sequence[TaskId]) -> dict[TaskId, Awaited]:
        """Those of these tasks that are open and have no challenge yet, or one that a machine found lost."""
        shown = {"tag": 1, "challenge_asked_at": 1}
        rows = self._tasks.find({"_id": {"$in": list(task_ids)}, "open": True, **_AWAITED}, shown)
        return {
            TaskId(row["_id"]): Awaited(Hash32(row["tag"]), float(row.get("challenge_asked_at", 0.0))) for row in rows
        }

    def record(self, task_id: TaskId, challenge: Wallet, asked_at: float) -> None:
        """Note a task's challenge. `asked_at`: of its `Awaited`.

        The first one stays, as assignments with it may have been signed, unless a machine found it lost and none is at
        work: with another, the replicates that found that are dropped, so that their machines may be asked anew.
        """
        told = {"challenge": challenge, "challenge_told_at": asked_at}
        change = {"$set": told | {"why": None, "next_visit": 0.0, "not_before": 0.0}, "$inc": {"version": 1}}
        known = {"_id": task_id, "challenge": {"$in": [None, ZERO_ADDRESS, challenge]}}
        if not self._tasks.update_one(known, change).matched_count:
            self._tasks.update_one({"_id": task_id, **_LOST, **_IDLE}, {**change, "$pull": {"replicates": _FOUND_LOST}})

    def record_none(self, task_ids: Sequence[TaskId], why: str) -> None:
        """Note why the secret service gave no challenge for these tasks."""
        none = {"_id": {"$in": list(task_ids)}, **_AWAITED}
        self._tasks.update_many(none, {"$set": {"why": why}, "$inc": {"version": 1}})
