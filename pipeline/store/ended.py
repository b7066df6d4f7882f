"""Records of deals that have been over for long, through all collections: found by index, and deleted.

    ready ─┬─► over ──its tasks, piece by piece, with their events, transactions and outputs──► none left ──► gone
    orphaned ┘

The deal itself goes last: a crash in the middle leaves it `over`, and the next run finds it and goes on. Nothing here
is of a task that can still change on chain, or did so lately: a task may be claimed long after its deal's deadline, and
until that is final a reorg can take it back, and the lane writes to its intent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.database import Database

from chain.lane.model.intent import ENDED
from pipeline.domain.actions import Method
from pipeline.store.blocks import FIRST
from pipeline.store.deals import ORPHANED, OVER, READY
from protocol.types import BlockNumber, DealId, TaskId

#: States of deals that may be deleted: one that is not ingested, or cannot be read, may have unknown tasks.
_STATES = [READY, ORPHANED, OVER]

DEAL_INDEXES = [IndexModel([("final_deadline", ASCENDING), ("_id", ASCENDING)], name="over")]
TASK_INDEXES = [
    # A bag may have many thousands of tasks, none of which need be read for that.
    IndexModel([("deal", ASCENDING), ("changed_at", ASCENDING)], name="ended", partialFilterExpression={"open": False})
]


@dataclass(frozen=True, slots=True)
class PastDeal:
    """A deal whose final deadline (Unix seconds) has passed."""

    deal_id: DealId
    final_deadline: int


class Ended:
    """Queries and deletions across collections for deals that are over."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._deals, self._tasks, self._logs = db["deals"], db["tasks"], db["logs"]
        self._intents, self._outputs, self._cursors = db["intents"], db["outputs"], db["cursors"]

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._deals.create_indexes(DEAL_INDEXES)
        self._tasks.create_indexes(TASK_INDEXES)

    def deals_past(self, before: float, limit: int, after: PastDeal | None = None) -> list[PastDeal]:
        """Deals with a final deadline before `before` (Unix seconds), oldest first; those behind `after` in that
        order.
        """
        passed: dict[str, Any] = {"final_deadline": {"$lt": before}}
        if after is not None:
            same = {"final_deadline": after.final_deadline, "_id": {"$gt": after.deal_id}}
            passed = {"$or": [same, {"final_deadline": {"$gt": after.final_deadline, "$lt": before}}]}
        rows = self._deals.find({**passed, "state": {"$in": _STATES}}, {"final_deadline": 1})
        order = [("final_deadline", ASCENDING), ("_id", ASCENDING)]
        return [PastDeal(DealId(row["_id"]), int(row["final_deadline"])) for row in rows.sort(order).limit(limit)]

    def lately(self, deal_ids: Sequence[DealId], since: float) -> set[DealId]:
        """Which of these deals have a task that is over and that something happened to since `since` (Unix seconds)."""
        late: list[dict[str, Any]] = [{"$match": {"open": False, "changed_at": {"$gte": since}}}, {"$limit": 1}]
        tasks = {"from": "tasks", "localField": "_id", "foreignField": "deal", "pipeline": late, "as": "late"}
        of_these: dict[str, Any] = {"$match": {"_id": {"$in": list(deal_ids)}}}
        any_late: list[dict[str, Any]] = [{"$match": {"late": {"$ne": []}}}, {"$project": {"_id": 1}}]
        return {DealId(row["_id"]) for row in self._deals.aggregate([of_these, {"$lookup": tasks}, *any_late])}

    def begin(self, deal_ids: Sequence[DealId]) -> list[DealId]:
        """Mark deals as over, so that no audit compares them with their tasks any more. Returns those marked: a deal
        that is to be read again meanwhile is not.
        """
        these = {"_id": {"$in": list(deal_ids)}}
        self._deals.update_many({**these, "state": {"$in": _STATES}}, {"$set": {"state": OVER}})
        return [DealId(row["_id"]) for row in self._deals.find({**these, "state": OVER}, {"_id": 1})]

    def tasks_of(self, deal_ids: Sequence[DealId], limit: int) -> list[TaskId]:
        """Tasks of these deals that are over, at most `limit`."""
        rows = self._tasks.find({"deal": {"$in": list(deal_ids)}, "open": False}, {"_id": 1}).limit(limit)
        return [TaskId(row["_id"]) for row in rows]

    def delete_tasks(self, task_ids: Sequence[TaskId], lane: str) -> int:
        """Delete these tasks if they are over, after their events, transactions (of the lane `lane`) and outputs;
        returns how many. A transaction that has not ended stays: a run of the lane that finds it gone goes no further.
        """
        self._delete_events({"event.task_id": {"$in": list(task_ids)}})
        keys = [f"{lane}:{method}:{task}" for task in task_ids for method in Method]
        # The key of a later try is that of the first, and `#<try>`.
        of_these = [{"_id": {"$gte": key, "$lt": f"{key}$"}} for key in keys]
        self._intents.delete_many({"$or": of_these, "state": {"$in": [state.value for state in ENDED]}})
        self._outputs.delete_many({"task": {"$in": list(task_ids)}})
        return self._tasks.delete_many({"_id": {"$in": list(task_ids)}, "open": False}).deleted_count

    def delete_deals(self, deal_ids: Sequence[DealId]) -> int:
        """Delete those of these deals that are marked as over and have no task any more, with their notices; returns
        how many.
        """
        left = set(self._tasks.distinct("deal", {"deal": {"$in": list(deal_ids)}}))
        gone = [deal_id for deal_id in deal_ids if deal_id not in left]
        self._delete_events({"event.deal_id": {"$in": gone}, "block": {"$in": self._blocks_of(gone)}})
        return self._deals.delete_many({"_id": {"$in": gone}, "state": OVER}).deleted_count

    def _blocks_of(self, deal_ids: Sequence[DealId]) -> list[int]:
        """The blocks in which deals were matched."""
        return [row["block"] for row in self._deals.find({"_id": {"$in": list(deal_ids)}}, {"block": 1})]

    def _delete_events(self, wanted: dict[str, Any]) -> None:
        """Delete events; no audit of events begins before the block after the last of them."""
        newest = {"$group": {"_id": None, "block": {"$max": "$block"}}}
        for row in self._logs.aggregate([{"$match": wanted}, newest]):
            first = BlockNumber(int(row["block"]) + 1)
            self._cursors.update_one({"_id": FIRST}, {"$max": {"number": first}}, upsert=True)
        self._logs.delete_many(wanted)
