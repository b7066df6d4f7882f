"""How a worker's row changes when slots are taken, given back, or earned: parts of MongoDB update pipelines.

What follows from other fields (`successes`, `free`) is set in the same update as those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from pymongo import UpdateOne

from pipeline.domain.records import MOST_PLEDGED, NEWCOMER_SLOTS, SLOTS_PER_SUCCESS, Outcome, Reservation
from protocol.poco.weights import NEWCOMER_WEIGHT
from protocol.types import TaskId, Wallet

Stages = list[dict[str, Any]]

#: How often it was right on chain, from its facts and what it did alone (WorkerRecord.successes).
SET_SUCCESSES = {
    "$set": {
        "successes": {
            "$max": [
                {"$ifNull": ["$facts.score", 0]},
                {
                    "$cond": [
                        {"$gt": ["$facts.weight", NEWCOMER_WEIGHT]},
                        {"$multiply": [3, {"$add": ["$facts.weight", 1]}]},
                        0,
                    ]
                },
                {"$ifNull": ["$solos", 0]},
            ]
        }
    }
}
#: `free` follows `slots`, `held`, `pledged` and what was earned in the same update (WorkerRecord.free).
SET_FREE = {
    "$set": {
        "free": {
            "$let": {
                "vars": {
                    "usable": {
                        "$min": [
                            "$slots",
                            {"$ifNull": ["$operator_slots", "$slots"]},
                            {
                                "$add": [
                                    NEWCOMER_SLOTS,
                                    {"$multiply": [SLOTS_PER_SUCCESS, {"$ifNull": ["$successes", 0]}]},
                                ]
                            },
                        ]
                    }
                },
                "in": {
                    "$max": [
                        0,
                        {
                            "$min": [
                                {"$subtract": ["$$usable", {"$size": "$held"}]},
                                {"$subtract": [{"$multiply": [MOST_PLEDGED, "$$usable"]}, {"$size": "$pledged"}]},
                            ]
                        },
                    ]
                },
            }
        }
    }
}
#: Seconds of cool-down after the second failure in a row, doubled by each further one up to the longest. The first may
#: be the app's fault.
FIRST_COOL_DOWN, LONGEST_COOL_DOWN = 5.0, 600.0
#: Failures in a row that are counted: enough for the longest cool-down.
MOST_FAILURES = 20


def reservation(wallet: Wallet, held: Sequence[Reservation]) -> UpdateOne:
    """Take a slot per entry, all or none, if none of the tasks is held already."""
    tasks = [item.task_id for item in held]
    rows = [{"task": item.task_id, "since": item.since, "stake": str(item.stake)} for item in held]
    return UpdateOne(
        {"_id": wallet, "free": {"$gte": len(held)}, "held.task": {"$nin": tasks}, "banned": False},
        [{"$set": {"held": {"$concatArrays": ["$held", rows]}}}, SET_FREE],
    )


def pledges(slots: Iterable[tuple[Wallet, TaskId]]) -> list[UpdateOne]:
    """Give slots back and keep their stakes for the votes: one update for each worker."""
    return [
        UpdateOne(
            {"_id": wallet, "held.task": {"$in": tasks}},
            [
                {
                    "$set": {
                        "held": _but("$held", tasks),
                        "pledged": {"$concatArrays": ["$pledged", _among("$held", tasks)]},
                    }
                },
                SET_FREE,
            ],
        )
        for wallet, tasks in _by_worker(slots)
    ]


def releases(slots: Iterable[tuple[Wallet, TaskId]], outcome: Outcome, now: float) -> list[UpdateOne]:
    """Give slots and stakes back with this outcome: one update for each worker, unless the outcome counts for those
    slots alone that were not given back before.
    """
    once = outcome.apart_from_slot or outcome is Outcome.NEUTRAL
    given = _by_worker(slots) if once else [(wallet, [task]) for wallet, task in slots]
    return [
        UpdateOne(
            _to_release(wallet, tasks, outcome),
            [
                {"$set": {"held": _but("$held", tasks), "pledged": _but("$pledged", tasks)}},
                SET_FREE,
                *outcome_changes(outcome, now, times=len(tasks)),
            ],
        )
        for wallet, tasks in given
    ]


def cancellation(wallet: Wallet, item: Reservation) -> UpdateOne:
    """Give the slot of this very reservation back."""
    return UpdateOne(
        {"_id": wallet, "held": {"$elemMatch": {"task": item.task_id, "since": item.since}}},
        [{"$set": {"held": _but("$held", [item.task_id])}}, SET_FREE],
    )


def _by_worker(slots: Iterable[tuple[Wallet, TaskId]]) -> Iterable[tuple[Wallet, list[TaskId]]]:
    """The tasks of each worker, in the order in which they come."""
    found: dict[Wallet, list[TaskId]] = defaultdict(list)
    for wallet, task in slots:
        found[wallet].append(task)
    return found.items()


def _among(slots: str, tasks: Sequence[TaskId]) -> dict[str, Any]:
    """A $filter of the array `slots`: entries of these tasks."""
    return {"$filter": {"input": slots, "cond": {"$in": ["$$this.task", tasks]}}}


def _but(slots: str, tasks: Sequence[TaskId]) -> dict[str, Any]:
    """A $filter of the array `slots`: entries of all other tasks."""
    return {"$filter": {"input": slots, "cond": {"$not": [{"$in": ["$$this.task", tasks]}]}}}


CLEARED = {"$set": {"failures": 0, "blamed": 0, "rest_until": 0.0}}
BLAMED = {"$set": {"blamed": {"$min": [MOST_FAILURES, {"$add": [{"$ifNull": ["$blamed", 0]}, 1]}]}}}


def failed(now: float) -> list[dict[str, Any]]:
    """Stages that count one more failure, with a cool-down from the second failure in a row on. `now`: Unix seconds."""
    doubled = {"$multiply": [FIRST_COOL_DOWN, {"$pow": [2, {"$subtract": ["$failures", 2]}]}]}
    cool_down = {"$min": [LONGEST_COOL_DOWN, doubled]}
    return [
        {"$set": {"failures": {"$min": [MOST_FAILURES, {"$add": ["$failures", 1]}]}}},
        {"$set": {"rest_until": {"$cond": [{"$lt": ["$failures", 2]}, 0.0, {"$add": [now, cool_down]}]}}},
    ]


def outcome_changes(outcome: Outcome, now: float, *, times: int = 1) -> Stages:
    """What the ends of so many of its replicates change in a worker's row."""
    match outcome:
        case Outcome.NEUTRAL:
            return []
        case Outcome.FAILED | Outcome.LATE | Outcome.WRONG:
            return failed(now) * times
        case Outcome.BLAMED:
            return [BLAMED] * times
        case Outcome.VOTED:
            return [CLEARED]
        case Outcome.PAID:
            paid = {"$set": {"solos": {"$add": [{"$ifNull": ["$solos", 0]}, times]}}}
            return [CLEARED, paid, SET_SUCCESSES, SET_FREE]
        case Outcome.WITHHELD:
            # It cools down longest and comes after all others until a task is completed with its vote.
            return [{"$set": {"failures": MOST_FAILURES, "rest_until": now + LONGEST_COOL_DOWN}}]


def _to_release(wallet: Wallet, tasks: Sequence[TaskId], outcome: Outcome) -> dict[str, Any]:
    """The query for the worker's row when slots are given back: only if the worker has a slot or stake tied up in one
    of the tasks, unless the outcome becomes known at another moment.
    """
    tied = {"$in": tasks}
    return (
        {"_id": wallet}
        if outcome.apart_from_slot
        else {"_id": wallet, "$or": [{"held.task": tied}, {"pledged.task": tied}]}
    )
