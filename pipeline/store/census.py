"""Collection `workers` as the pool's operator looks at it: pages of machines, counts by state, limits of slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo import ASCENDING
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.facts import MachineFacts
from pipeline.domain.records import WorkerRecord
from pipeline.domain.worker_state import WorkerState
from pipeline.store.quarantine import Quarantine, Reader
from pipeline.store.worker_documents import WORKERS
from pipeline.store.worker_updates import SET_FREE
from protocol.types import Wallet

#: Machines counted to tell how the pool stands: beyond that, more of them change nothing.
STANDING_LIMIT = 1000


class Census:
    """Queries on `workers` that no task waits for."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["workers"]
        self._reader = Reader(self._rows, WORKERS, Quarantine(db), lambda until: {"rest_until": until})

    def all_workers(self, limit: int = 10_000, *, after: Wallet | None = None) -> list[WorkerRecord]:
        """Machines by wallet, at most `limit`; `after`: those behind this wallet."""
        query: dict[str, Any] = {} if after is None else {"_id": {"$gt": after}}
        return self._reader.each(self._rows.find(query).sort("_id", ASCENDING).limit(limit))

    def limit_slots(self, wallet: Wallet, most: int | None) -> bool:
        """Let a machine use at most `most` slots: 0 drains it, None takes the limit back. False: unknown wallet.

        What it has stays with it: a limit below the slots in use gives it nothing new until enough are free.
        """
        change: list[dict[str, Any]] = [{"$set": {"operator_slots": most}}, SET_FREE]
        return self._rows.update_one({"_id": wallet}, change).matched_count == 1

    def count_by_state(self, now: float, lost_after: float) -> dict[WorkerState, int]:
        """How many machines are in each state, by the rules of `pipeline.domain.worker_state`."""
        holds: list[tuple[object, WorkerState]] = [
            ("$banned", WorkerState.BANNED),
            ({"$eq": ["$operator_slots", 0]}, WorkerState.DRAINED),
            ("$away", WorkerState.AWAY),
            ({"$or": ["$lost", {"$lt": ["$seen_at", now - lost_after]}]}, WorkerState.LOST),
            ({"$and": [{"$gt": ["$checked_at", 0]}, {"$ne": ["$facts.funded", True]}]}, WorkerState.NO_GAS),
            ({"$gt": ["$rest_until", now]}, WorkerState.COOLING_DOWN),
            ({"$gt": [{"$size": {"$cond": [{"$isArray": "$held"}, "$held", []]}}, 0]}, WorkerState.BUSY),
        ]
        branches = [{"case": case, "then": str(state)} for case, state in holds]
        state = {"$switch": {"branches": branches, "default": str(WorkerState.IDLE)}}
        rows = self._rows.aggregate([{"$group": {"_id": state, "count": {"$sum": 1}}}])
        return dict.fromkeys(WorkerState, 0) | {WorkerState(row["_id"]): int(row["count"]) for row in rows}

    def standing(self, seen_after: float, now: float) -> MachineFacts:
        """How many machines can take work, and if none can, why; each counted up to STANDING_LIMIT."""
        heard = {"seen_at": {"$gte": seen_after}, "lost": False}
        # One that has just signed in was not looked up on chain yet: not known to lack gas.
        funded = {"$or": [{"facts.funded": True}, {"checked_at": 0.0}]}
        free = {"banned": False, "operator_slots": {"$ne": 0}}
        able = self._count({**heard, **funded, **free, "rest_until": {"$lte": now}})
        if able:
            return MachineFacts(able)
        return MachineFacts(
            able=0,
            enrolled=self._count({}),
            silent=self._count({"$or": [{"seen_at": {"$lt": seen_after}}, {"lost": True}], **free}),
            unfunded=self._count({**heard, **free, "facts.funded": False, "checked_at": {"$gt": 0}}),
            cooling=self._count({**heard, **free, "rest_until": {"$gt": now}}),
            banned=self._count({"banned": True}),
            drained=self._count({"banned": False, "operator_slots": 0}),
        )

    def _count(self, query: Mapping[str, Any]) -> int:
        return self._rows.count_documents(query, limit=STANDING_LIMIT)
