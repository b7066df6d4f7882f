"""Counts why a round of matching gave tasks to no machine, for the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from config.metrics import ASSIGNMENTS_REFUSED
from pipeline.domain import match as matching
from pipeline.domain.match import Capacity, Match, Obstacle
from pipeline.domain.records import TaskRecord, WorkerRecord

#: Tasks, and machines for each, that are counted: the others hardly differ, and counting must not slow a round of
#: matching down.
TASKS, WORKERS = 20, 50


def count(tasks: Sequence[TaskRecord], matches: Sequence[Match], workers: Sequence[WorkerRecord]) -> None:
    """Count the reasons of this round. `tasks`: most urgent first; `workers`: the machines it chose from."""
    for reason, number in reasons(tasks, matches, workers).items():
        ASSIGNMENTS_REFUSED.labels(reason).inc(number)


def reasons(tasks: Sequence[TaskRecord], matches: Sequence[Match], workers: Sequence[WorkerRecord]) -> Counter[str]:
    """How many of the first TASKS tasks without a match have which obstacle. Pure.

    Of several machines the obstacle counts that may pass soonest; `no_machine` where none with a free slot was found
    that offers the tag and has the stake.
    """
    served = {found.task.task_id for found in matches}
    waiting = [task for task in tasks if task.task_id not in served][:TASKS]
    # Mostly every task got its machine.
    capacities = [Capacity.of(worker) for worker in workers[:WORKERS]] if waiting else []
    return Counter(_nearest(task, capacities) for task in waiting)


def _nearest(task: TaskRecord, capacities: Sequence[Capacity]) -> str:
    """The obstacle of the machine that comes closest to taking the task."""
    if not capacities:
        return "no_machine"
    # A machine without an obstacle of its own was given to another task of the round, or is too new for this one.
    found = [matching.obstacle(task, capacity) for capacity in capacities]
    return max(Obstacle.BUSY if each is None else each for each in found).name.lower()
