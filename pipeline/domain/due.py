"""Which of the tasks whose visit is due are visited, and in which order. Pure.

    WAITED_FOR   a worker has it, or its deadline costs a stake when it is missed
    EARLY        it waits for its initialize or for a worker, and votes can still come
    EXPIRED      no vote can come any more: only its stakes are still locked

Within a turn each deal gets the same share, so that the many tasks of one deal that become due at once, as all tasks of
a bag do at its deadlines, delay no other deal's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from pipeline.domain.records import TaskStage
from protocol.types import DealId, TaskId

#: Stages before any worker has a task.
EARLY_STAGES = frozenset({TaskStage.RECEIVED, TaskStage.INITIALIZED})
#: Stages of an open task that a worker has, or whose votes have begun.
WAITED_FOR_STAGES = frozenset(TaskStage) - EARLY_STAGES - {TaskStage.COMPLETED, TaskStage.FAILED}
#: One in so many of the chosen tasks is of each later turn, while that has any: no turn starves.
LATER_SHARE = 10


class Turn(IntEnum):
    """Which due tasks are visited first: a lower turn before a higher one."""

    WAITED_FOR = 0
    EARLY = 1
    EXPIRED = 2


@dataclass(frozen=True, slots=True)
class DueTask:
    """What decides about a due task's turn; times in Unix seconds."""

    task_id: TaskId
    deal: DealId
    #: As stored: a row of another release may have a stage that is not known here.
    stage: str
    next_visit: float
    contribution_deadline: float
    final_deadline: float

    def turn(self, now: float) -> Turn:
        """Which of the three turns the task belongs to at `now` (Unix seconds)."""
        if self.stage in WAITED_FOR_STAGES and now < self.final_deadline:
            return Turn.WAITED_FOR
        if self.stage in EARLY_STAGES and now < self.contribution_deadline:
            return Turn.EARLY
        return Turn.EXPIRED


def choose_due(due: Iterable[DueTask], now: float, most: int, capacity: int) -> list[TaskId]:
    """The ids of at most `most` due tasks, in the order to visit them.

    `capacity`: how many more transactions of expired tasks the lane takes. No more expired tasks than that are chosen,
    or a small share of `most` if that is more, since some of them need no transaction.
    """
    turns: dict[Turn, list[DueTask]] = {turn: [] for turn in Turn}
    for task in sorted(due, key=lambda task: (task.next_visit, task.task_id)):
        turns[task.turn(now)].append(task)
    least = {turn: min(len(turns[turn]), most // LATER_SHARE) for turn in Turn}
    left = most - least[Turn.EARLY] - least[Turn.EXPIRED]
    first = _equally(turns[Turn.WAITED_FOR])[:left]
    left = most - len(first) - least[Turn.EXPIRED]
    early = _equally(turns[Turn.EARLY])[:left]
    left = min(most - len(first) - len(early), max(capacity, least[Turn.EXPIRED]))
    expired = _equally(turns[Turn.EXPIRED])[:left]
    return [task.task_id for task in (*first, *early, *expired)]


def _equally(tasks: Iterable[DueTask]) -> list[DueTask]:
    """One task of each deal, then the next of each, and so on; each deal's in the order they came."""
    places: dict[DealId, int] = {}
    placed = []
    for task in tasks:
        place = places.get(task.deal, 0)
        places[task.deal] = place + 1
        placed.append((place, task))
    return [task for _, task in sorted(placed, key=lambda item: item[0])]
