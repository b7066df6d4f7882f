"""Collection `workers` as the operator's API shows it: pages of machines, counts by state, limits of slots.

Rows of machines that did anything are never removed, and signing in is free: no count here costs more for every wallet
that once did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.condition.facts import MachineFacts
from pipeline.domain.machines.worker_state import WorkerState
from pipeline.domain.records import WorkerRecord
from pipeline.store.machine.documents import WORKERS
from pipeline.store.machine.updates import SET_FREE
from pipeline.store.quarantine import Quarantine, Reader
from protocol.types import Hash32, Wallet

#: Machines counted for one figure of the pool's state: more of them would change nothing.
MACHINES_LIMIT = 1000
#: Machines counted of those that signed off and did not come back, and of those lost: both grow for ever, and of more a
#: person would do nothing else.
MOST_GONE = 10_000

#: Machines that the sweep has not found lost; the bound on `seen_at` lets their index serve (`workers.INDEXES`).
_THERE: dict[str, Any] = {"lost": False, "seen_at": {"$gte": 0.0}}
#: The query for machines that the operator neither bans nor drains.
_FREE: dict[str, Any] = {"banned": {"$ne": True}, "operator_slots": {"$ne": 0}}
#: The query for machines not known to lack gas: one that has just signed in was not looked up on chain yet.
_MAYBE_FUNDED: dict[str, Any] = {"$or": [{"facts.funded": True}, {"checked_at": 0.0}]}
#: The operator bans and drains by hand, so these are few.
_BANNED: dict[str, Any] = {"banned": True}
_DRAINED: dict[str, Any] = {"operator_slots": 0, "banned": {"$ne": True}}
#: Machines that came and went: nothing at the broker, and never right on chain.
_PASSERS_BY: dict[str, Any] = {"queues": False, "successes": 0}

INDEXES = [
    IndexModel([("lost", ASCENDING), ("away", ASCENDING)], name="gone", partialFilterExpression={"lost": True}),
    IndexModel([("banned", ASCENDING)], name="banned", partialFilterExpression={"banned": True}),
    IndexModel([("operator_slots", ASCENDING)], name="drained", partialFilterExpression={"operator_slots": 0}),
    IndexModel([("away", ASCENDING)], name="leaving", partialFilterExpression={"away": True, "lost": False}),
    IndexModel([("checked_at", ASCENDING)], name="no_gas", partialFilterExpression={"facts.funded": False}),
    IndexModel([("rest_until", ASCENDING)], name="cooling_down", partialFilterExpression={"rest_until": {"$gt": 0.0}}),
    IndexModel([("seen_at", ASCENDING)], name="passers_by", partialFilterExpression=_PASSERS_BY),
]


@dataclass(frozen=True, slots=True)
class Capacity:
    """Machines, those of them with a task, and their slots in use and free."""

    machines: int
    busy: int
    held: int
    free: int


class Census:
    """Queries on `workers` for the operator: no task waits for their answers."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["workers"]
        self._reader = Reader(self._rows, WORKERS, Quarantine(db), lambda until: {"rest_until": until})

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def all_workers(self, limit: int = 10_000, *, after: Wallet | None = None) -> list[WorkerRecord]:
        """Machines by wallet, at most `limit`; `after`: those behind this wallet."""
        query: dict[str, Any] = {} if after is None else {"_id": {"$gt": after}}
        return self._reader.each(self._rows.find(query).sort("_id", ASCENDING).limit(limit))

    def able(self, seen_after: float, now: float, limit: int) -> list[WorkerRecord]:
        """Machines that could be given a task now, with or without a free slot, by the rules of
        `workers.with_free_slots`; at most `limit`.
        """
        return self._reader.each(self._rows.find(_able(seen_after, now)).limit(limit))

    def offers(self, tag: Hash32, seen_after: float) -> bool:
        """Whether a machine that is there, and may be given tasks, offers the bits of a tag: one that is busy or cools
        down too, and one whose native token was not read yet.
        """
        there = {"lost": False, "seen_at": {"$gte": seen_after}, "away": {"$ne": True}, **_FREE, **_MAYBE_FUNDED}
        bits = {"tag_bits": {"$bitsAllSet": bytes.fromhex(tag[2:])}}
        return self._rows.find_one(there | bits, {"_id": 1}) is not None

    def limit_slots(self, wallet: Wallet, most: int | None) -> bool:
        """Let a machine use at most `most` slots: 0 drains it, None takes the limit back. False: unknown wallet.

        It keeps the tasks it has: below a limit under the slots in use, it gets nothing new until enough are free.
        """
        change: list[dict[str, Any]] = [{"$set": {"operator_slots": most}}, SET_FREE]
        return self._rows.update_one({"_id": wallet}, change).matched_count == 1

    def forget_passers_by(self, before: float, limit: int) -> int:
        """Delete machines not heard of since `before` of which there is nothing to remember: no user at the broker, no
        work, no vote, nothing held against them, no word of the operator. At most `limit`; returns how many.
        """
        nothing = _PASSERS_BY | {"seen_at": {"$lt": before}, "held": [], "pledged": [], "replacing": {"$ne": True}}
        nothing |= {"failures": 0, "blamed": 0, "solos": 0, "banned": False, "operator_slots": None}
        wallets = [row["_id"] for row in self._rows.find(nothing, {"_id": 1}).limit(limit)]
        # One that signs in meanwhile has been heard of.
        return self._rows.delete_many({"_id": {"$in": wallets}, **nothing}).deleted_count

    def count_by_state(self, now: float, lost_after: float) -> dict[WorkerState, int]:
        """How many machines are in each state, by the rules of `pipeline.domain.machines.worker_state`.

        Only those that are not idle are read: the others are what is left of all. Of those that the sweep has marked
        lost, AWAY and LOST are counted up to MOST_GONE each.
        """
        holds: list[tuple[object, WorkerState]] = [
            ({"$eq": ["$banned", True]}, WorkerState.BANNED),
            ({"$eq": ["$operator_slots", 0]}, WorkerState.DRAINED),
            ("$away", WorkerState.AWAY),
            ({"$lt": ["$seen_at", now - lost_after]}, WorkerState.LOST),
            ({"$and": [{"$gt": ["$checked_at", 0]}, {"$ne": ["$facts.funded", True]}]}, WorkerState.NO_GAS),
            ({"$gt": ["$rest_until", now]}, WorkerState.COOLING_DOWN),
            ({"$gt": [{"$size": {"$cond": [{"$isArray": "$held"}, "$held", []]}}, 0]}, WorkerState.BUSY),
        ]
        branches = [{"case": case, "then": str(state)} for case, state in holds]
        state = {"$switch": {"branches": branches, "default": str(WorkerState.IDLE)}}
        there = {"$match": {"$or": _not_idle(now, lost_after)}}
        rows = self._rows.aggregate([there, {"$group": {"_id": state, "count": {"$sum": 1}}}])
        found = dict.fromkeys(WorkerState, 0) | {WorkerState(row["_id"]): int(row["count"]) for row in rows}
        others = self._rows.count_documents(_THERE) - sum(found.values())
        found[WorkerState.IDLE] += max(0, others)
        found[WorkerState.BANNED] = self._rows.count_documents(_BANNED)
        found[WorkerState.DRAINED] = self._rows.count_documents(_DRAINED)
        found[WorkerState.AWAY] += self._count({"lost": True, "away": True, **_FREE}, MOST_GONE)
        found[WorkerState.LOST] += self._count({"lost": True, "away": {"$ne": True}, **_FREE}, MOST_GONE)
        return found

    def capacity(self, seen_after: float, now: float) -> dict[Hash32, Capacity]:
        """What the machines that could be given a task now, by the rules of `able`, offer together; by their tags."""
        one = {"$cond": [{"$gt": [{"$size": "$held"}, 0]}, 1, 0]}
        sums = {
            "machines": {"$sum": 1},
            "busy": {"$sum": one},
            "held": {"$sum": {"$size": "$held"}},
            "free": {"$sum": "$free"},
        }
        rows = self._rows.aggregate([{"$match": _able(seen_after, now)}, {"$group": {"_id": "$tag", **sums}}])
        return {Hash32(row["_id"]): Capacity(row["machines"], row["busy"], row["held"], row["free"]) for row in rows}

    def machine_facts(self, seen_after: float, now: float) -> MachineFacts:
        """How many machines can take work, and if none can, how many cannot for which reason. Each is counted up to
        MACHINES_LIMIT. `seen_after`: machines last seen before count as silent; both are Unix seconds.
        """
        heard = {"seen_at": {"$gte": seen_after}, "lost": False}
        able = self._count({**heard, **_FREE, **_MAYBE_FUNDED, "rest_until": {"$lte": now}})
        if able:
            return MachineFacts(able)
        silent = self._count({"lost": True, **_FREE})
        silent += self._count({"lost": False, "seen_at": {"$lt": seen_after}, **_FREE})
        return MachineFacts(
            able=0,
            enrolled=self._count({"_id": {"$gt": ""}}),
            silent=min(silent, MACHINES_LIMIT),
            unfunded=self._count({**heard, **_FREE, "facts.funded": False, "checked_at": {"$gt": 0}}),
            cooling=self._count({**heard, **_FREE, "rest_until": {"$gt": now}}),
            banned=self._count(_BANNED),
            drained=self._count(_DRAINED),
        )

    def _count(self, query: Mapping[str, Any], limit: int | None = None) -> int:
        """How many rows fit the query, counted up to a limit."""
        return self._rows.count_documents(query, limit=MACHINES_LIMIT if limit is None else limit)


def _able(seen_after: float, now: float) -> dict[str, Any]:
    """The query for machines that could be given a task now, with or without a free slot."""
    query = {**_FREE, "lost": False, "seen_at": {"$gte": seen_after}, "facts.funded": True}
    return query | {"rest_until": {"$lte": now}, "away": {"$ne": True}, "disconnected_at": None}


def _not_idle(now: float, lost_after: float) -> list[dict[str, Any]]:
    """Queries, each by an index of few machines, that find every machine that is there and has any state but IDLE."""
    marks: list[dict[str, Any]] = [
        _BANNED,
        {"operator_slots": 0},
        {"away": True},
        {"seen_at": {"$gte": 0.0, "$lt": now - lost_after}},
        {"facts.funded": False, "checked_at": {"$gt": 0.0}},
        {"rest_until": {"$gt": now}},
        {"held.since": {"$gt": 0.0}},
    ]
    return [{"lost": False, **mark} for mark in marks]
