"""Who gets which task: waiting tasks against workers with a free slot. Pure.

Most urgent task first; for each, the fitting workers with fewest failures in a row, then most free slots, heavier votes
first, so that work spreads over machines and few votes suffice. A worker fits if its tag covers the task's, its free
stake covers what the vote locks, it can pay gas, it never had this task before and holds no slot for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pipeline.records import TaskRecord, WorkerRecord
from protocol import weights
from protocol.tags import fits
from protocol.types import NRlc, Wallet
from protocol.wire import Mode


@dataclass(frozen=True, slots=True)
class Match:
    """A task and the workers to ask: as many as it wants, or fewer whose votes weigh more."""

    task: TaskRecord
    workers: tuple[WorkerRecord, ...]

    def without(self, unreachable: AbstractSet[Wallet]) -> Match:
        """The same but for some workers."""
        return Match(self.task, tuple(worker for worker in self.workers if worker.wallet not in unreachable))

    @property
    def leading(self) -> int:
        """Weight of the leading result if these workers join it."""
        return weights.group_weight(
            (*([self.task.leading] if self.task.leading else []), *(worker.facts.weight for worker in self.workers))
        )

    @property
    def wants(self) -> int:
        """Replicates that the task still wants after this."""
        enough = weights.consensus_reached(self.task.trust, self.leading, self.task.others)
        return 0 if enough else max(self.task.wants - len(self.workers), 0)


@dataclass(slots=True)
class _Room:
    """What is left of a worker during one round of matching."""

    worker: WorkerRecord
    order: int
    free: int
    stake: NRlc

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Lower comes first."""
        return self.worker.failures, -self.free, -self.worker.facts.weight, self.order

    def __lt__(self, other: _Room) -> bool:
        return self.rank < other.rank


def match(tasks: Iterable[TaskRecord], workers: Sequence[WorkerRecord]) -> list[Match]:
    """Matches for one round. `tasks`: most urgent first."""
    rooms = _rooms(workers)
    heapq.heapify(rooms)
    matches = []
    for task in tasks:
        if not rooms:
            break
        chosen = _choose(task, rooms)
        if chosen:
            matches.append(Match(task, tuple(room.worker for room in chosen)))
    return matches


def slots_left(workers: Sequence[WorkerRecord], matches: Iterable[Match]) -> bool:
    """Whether workers that may get tasks have slots left after these matches."""
    return sum(room.free for room in _rooms(workers)) > sum(len(found.workers) for found in matches)


def _rooms(workers: Sequence[WorkerRecord]) -> list[_Room]:
    return [
        _Room(
            worker,
            order,
            worker.free,
            NRlc(worker.facts.stake - sum(item.stake for item in (*worker.held, *worker.pledged))),
        )
        for order, worker in enumerate(workers)
        if worker.free and worker.facts.funded and not worker.banned and not worker.lost
    ]


def stake_locked(task: TaskRecord) -> NRlc:
    """nRLC that a worker's vote on the task locks; alone it locks nothing."""
    return NRlc(0) if task.mode is Mode.SOLO else task.worker_stake


def _choose(task: TaskRecord, rooms: list[_Room]) -> list[_Room]:
    """Take the task's workers out of the heap and put back what is left of them."""
    chosen: list[_Room] = []
    passed: list[_Room] = []
    while rooms and Match(task, tuple(room.worker for room in chosen)).wants:
        room = heapq.heappop(rooms)
        (chosen if _suits(task, room) else passed).append(room)
    for room in chosen:
        room.free -= 1
        room.stake = NRlc(room.stake - stake_locked(task))
    for room in (*passed, *(room for room in chosen if room.free)):
        heapq.heappush(rooms, room)
    return chosen


def _suits(task: TaskRecord, room: _Room) -> bool:
    return (
        fits(task.tag, room.worker.tag)
        and room.stake >= stake_locked(task)
        and task.replicate(room.worker.wallet) is None
        # held for it by a process that is about to say so, or that died before it could
        and not any(item.task_id == task.task_id for item in room.worker.held)
    )
