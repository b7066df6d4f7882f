"""Queries for the tasks that the sweep and `pipeline.bulk` find by themselves; each costs about as much as it finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection as Some
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection

from pipeline.domain.due import EARLY_STAGES, WAITED_FOR_STAGES, DueTask, Turn
from pipeline.domain.records import TaskStage
from protocol.types import DealId, TaskId

Rows = Collection[dict[str, Any]]

#: The index that finds tasks whose initialize is still to be handed over.
_RECEIVED = "received"
#: Deals that share one round of `find_uninitialized`, or one window of `find_due`.
MOST_DEALS = 20
#: Fields of a task that decide about its turn.
_FIELDS = ("next_visit", "contribution_deadline", "final_deadline")

INDEXES = [
    IndexModel(
        [("next_visit", ASCENDING), ("deal", ASCENDING)], name="due_of_deals", partialFilterExpression={"open": True}
    ),
    # All that is asked of a task before its turn is known: those that have to wait are passed over without being read.
    IndexModel(
        [(name, ASCENDING) for name in ("stage", "next_visit", "final_deadline", "contribution_deadline", "deal")],
        name="due_in_turn",
        partialFilterExpression={"open": True},
    ),
    IndexModel(
        [("deal", ASCENDING), ("contribution_deadline", ASCENDING), ("index", ASCENDING)],
        name=_RECEIVED,
        partialFilterExpression={"stage": str(TaskStage.RECEIVED)},
    ),
]


def find_due(rows: Rows, now: float, limit: int, turns: Some[Turn]) -> list[DueTask]:
    """Open tasks whose next visit has come, longest overdue first: for each turn at most `limit`.

    One query, if fewer than `limit` are due in all. If a turn has `limit` or more due tasks, up to `limit` tasks of
    other deals are added, so that a few large deals do not keep the others waiting. The sweep and `pipeline.bulk` call
    it. `now`: Unix seconds.
    """
    due = {"open": True, "next_visit": {"$lte": now}}
    whatever = _due(rows, due, limit)
    if len(whatever) < limit:
        return [task for task in whatever if Turn.EXPIRED in turns or task.turn(now) in turns]
    found: dict[TaskId, DueTask] = {}
    for turn in sorted(turns):
        query = due | _of_turn(turn, now)
        first = whatever if turn is Turn.EXPIRED else _due(rows, query, limit)
        if len(first) == limit:
            shares = Counter(task.deal for task in first)
            many = [deal for deal, count in shares.items() if count > limit // MOST_DEALS]
            first += _due(rows, query | {"deal": {"$nin": many}}, limit)
        found |= {task.task_id: task for task in first}
    return list(found.values())


def _due(rows: Rows, query: dict[str, Any], limit: int) -> list[DueTask]:
    """Tasks that fit the query, the longest due first."""
    shown = dict.fromkeys(("stage", "deal", *_FIELDS), 1)
    return [
        DueTask(
            TaskId(row["_id"]),
            DealId(str(row.get("deal"))),
            str(row.get("stage")),
            *(_seconds(row.get(name)) for name in _FIELDS),
        )
        for row in rows.find(query, shown).sort("next_visit", ASCENDING).limit(limit)
    ]


def _of_turn(turn: Turn, now: float) -> dict[str, Any]:
    """The query for one turn; the last turn is whatever is due, so that no row is left out, whatever its shape."""
    match turn:
        case Turn.WAITED_FOR:
            return {"stage": {"$in": sorted(map(str, WAITED_FOR_STAGES))}, "final_deadline": {"$gt": now}}
        case Turn.EARLY:
            return {"stage": {"$in": sorted(map(str, EARLY_STAGES))}, "contribution_deadline": {"$gt": now}}
        case Turn.EXPIRED:
            return {}


def make_due(rows: Rows, now: float) -> None:
    """Have every open task visited and matched from `now` on that was to be later, by a clock that was wrong."""
    rows.update_many({"open": True, "next_visit": {"$gt": now}}, {"$set": {"next_visit": now}})
    # The bound on the deadline lets the index of waiting tasks serve.
    waiting = {"wants": {"$gt": 0}, "contribution_deadline": {"$gt": 0}, "not_before": {"$gt": now}}
    rows.update_many(waiting, {"$set": {"not_before": now}})


def _seconds(value: object) -> float:
    """A stored time; 0 for anything else: reading the whole row then quarantines it."""
    return float(value) if isinstance(value, int | float) else 0.0


def find_uninitialized(rows: Rows, now: float, limit: int, after: str) -> list[TaskId]:
    """Tasks whose initialize was never handed to the lane, perhaps because it had no capacity for them then.

    Each deal gets an equal share of `limit`, its tasks by index. Deals come in the order of their ids, beginning behind
    the id `after` and starting again from the lowest id.
    """
    deals = _deals_uninitialized(rows, now, after)
    found: list[TaskId] = []
    for place, deal in enumerate(deals):
        share = -(-(limit - len(found)) // (len(deals) - place))
        query = _uninitialized(now) | {"deal": deal}
        shown = rows.find(query, {"_id": 1}).sort("index", ASCENDING).limit(share).hint(_RECEIVED)
        found += [TaskId(row["_id"]) for row in shown] if share > 0 else []
    return found


def any_received(rows: Rows) -> bool:
    """Whether `find_uninitialized` may find anything: a task that is not initialized on chain, as far as is known."""
    query = {"stage": str(TaskStage.RECEIVED), "deal": {"$gt": ""}}
    return rows.find_one(query, {"_id": 1}, hint=_RECEIVED) is not None


def _deals_uninitialized(rows: Rows, now: float, after: str) -> list[str]:
    """Deals with tasks to initialize, from the one after `after` on and then from the first."""
    deals: list[str] = []
    for bound in ({}, {"$lte": after}):
        last = after if not bound else ""
        while len(deals) < MOST_DEALS:
            query = _uninitialized(now) | {"deal": {"$gt": last} | bound}
            row = rows.find_one(query, {"deal": 1}, sort=[("deal", ASCENDING)], hint=_RECEIVED)
            if row is None:
                break
            last = row["deal"]
            deals.append(last)
    return deals


def _uninitialized(now: float) -> dict[str, Any]:
    """The query for tasks whose initialize was never submitted, and is to be."""
    return {
        "stage": str(TaskStage.RECEIVED),
        "orphaned": False,
        "unserved": {"$ne": True},
        "contribution_deadline": {"$gt": now},
        "sent.initialize": {"$exists": False},
        "failed.initialize": {"$exists": False},
    }
