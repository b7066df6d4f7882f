"""Machines that can take one more task, the best first; and what each round of matching reads before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.records import CLOCKS_APART, WorkerRecord
from pipeline.store.documents import Row
from pipeline.store.hold import POOL, Begins, begins_from, begins_stages, of_pool
from pipeline.store.machine.documents import WORKERS
from pipeline.store.machine.updates import LONGEST_COOL_DOWN
from pipeline.store.quarantine import Quarantine, Reader
from pipeline.store.task.waiting import COLLECTION as TASKS
from pipeline.store.task.waiting import MOST_URGENT_FIRST, waiting

#: The conditions in a worker's row for getting tasks: those that the index covers, and the others.
READY: dict[str, Any] = {"facts.funded": True, "banned": False, "lost": False, "free": {"$gt": 0}}
#: The best first: right on chain most often, then most stake; equals in a random order that changes with each reading.
BEST_FIRST = [("successes", DESCENDING), ("worth", DESCENDING), ("lot", ASCENDING)]
#: The field of a row of the round's query that holds a task.
_TASK = "task"


def ready(seen_after: float, now: float) -> dict[str, Any]:
    """The query for workers heard of since `seen_after` that can take one more task: with a slot free, connected to
    RabbitMQ, not banned, stopped or cooling down, with native token for gas when last read.
    """
    present = {"away": {"$ne": True}, "disconnected_at": None}
    return READY | {"seen_at": {"$gte": seen_after}, "rest_until": {"$lte": now}} | present


@dataclass(frozen=True, slots=True)
class Round:
    """What a round of matching begins with."""

    free: list[WorkerRecord]
    #: What keeps the pool from giving out tasks at all.
    begins: Begins
    #: Rows of the tasks that come first, for `Tasks.read`; as many as were asked for, if there are as many.
    waiting: list[Row]


class Rounds:
    """The first query of a round of matching."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["workers"]
        self._reader = Reader(self._rows, WORKERS, Quarantine(db), lambda until: {"rest_until": until})

    def begin(self, seen_after: float, limit: int, now: float, *, tasks: int = 0) -> Round:
        """The best `limit` workers as of `ready`, and the first `tasks` tasks as of `Tasks.tasks_wanting_workers`, in
        one query. Unix seconds.
        """
        stages: list[dict[str, Any]] = [
            {"$match": ready(seen_after, now)},
            {"$sort": dict(BEST_FIRST)},
            {"$limit": limit},
            {"$unionWith": {"coll": POOL, "pipeline": begins_stages()}},
        ]
        if tasks:
            urgent = [{"$match": waiting(now)}, {"$sort": MOST_URGENT_FIRST}, {"$limit": tasks}]
            wrapped = {"$project": {"_id": 0, _TASK: "$$ROOT"}}
            stages.append({"$unionWith": {"coll": TASKS, "pipeline": [*urgent, wrapped]}})
        rows = list(self._rows.aggregate(stages))
        first = [row[_TASK] for row in rows if _TASK in row]
        others = [row for row in rows if _TASK not in row]
        free = self._reader.each(row for row in others if not of_pool(row))
        return Round(free, begins_from(filter(of_pool, others)), first)

    def end_long_cool_downs(self, now: float) -> None:
        """End cool-downs that end later than any that begins now (`now`: Unix seconds): they were stored by a clock
        that was ahead.
        """
        wrong = {"rest_until": {"$gt": now + LONGEST_COOL_DOWN + CLOCKS_APART}}
        self._rows.update_many(wrong, {"$set": {"rest_until": 0.0}})
