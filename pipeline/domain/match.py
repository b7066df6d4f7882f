"""Who gets which task: waiting tasks against workers with a free slot. Pure.

Most urgent task first; for each, the fitting workers in the order of `Capacity.rank`: what they have earned or put at
risk on chain counts, their own claims do not. A worker fits if nothing of `obstacle` stands in its way.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import IntEnum

from pipeline.domain.enclaves import lacks_challenge
from pipeline.domain.records import MOST_NEWCOMERS, TaskRecord, WorkerRecord
from pipeline.domain.replicas import spent_newcomers
from protocol.poco import weights
from protocol.poco.tags import fits
from protocol.types import NRlc, Wallet
from protocol.wire import Mode


class Obstacle(IntEnum):
    """What keeps a worker from a task; the higher, the sooner it may pass."""

    ENCLAVE = 0  #: no machine is given the task: its result needs an enclave's challenge, and it has none
    BANNED = 1
    DRAINED = 2  #: the pool's operator lets it finish what it has (`sluice worker drain`)
    LOST = 3  #: no ping for too long
    TAG = 4  #: it does not offer what the task's tag demands
    UNCHECKED = 5  #: its native-token balance and stake were not read yet
    GAS = 6  #: its native token does not pay the gas of a task
    STAKE = 7  #: its free stake, less what is promised, does not cover the vote
    NEWCOMERS = 8  #: it was never right on chain; others like it failed the task, are at it or could decide it alone
    ASKED = 9  #: it had the task before
    COOLING_DOWN = 10  #: it failed several times in a row
    BUSY = 11  #: no slot that it may use is free


@dataclass(frozen=True, slots=True)
class Match:
    """A task and the workers to ask: as many as it wants, or fewer whose votes weigh more."""

    task: TaskRecord
    workers: tuple[WorkerRecord, ...]

    def without(self, unreachable: AbstractSet[Wallet]) -> Match:
        """The same match without the workers that cannot be given the task after all."""
        return Match(self.task, tuple(worker for worker in self.workers if worker.wallet not in unreachable))

    @property
    def leading(self) -> int:
        """Weight of the leading result if these workers join it."""
        return weights.group_weight(
            (*([self.task.leading] if self.task.leading else []), *(worker.facts.weight for worker in self.workers))
        )

    @property
    def wants(self) -> int:
        """Replicates that the task still wants after this match. Votes alone that are on chain without a consensus are
        not enough, however heavy they seem.
        """
        enough = bool(self.workers) and weights.consensus_reached(self.task.trust, self.leading, self.task.others)
        return 0 if enough else max(self.task.wants - len(self.workers), 0)

    @property
    def newcomers(self) -> int:
        """How many more workers that were never right on chain the task may be given to after this match."""
        return self.task.newcomers - sum(not worker.successes for worker in self.workers)


@dataclass(slots=True)
class Capacity:
    """The free slots and the free stake of one worker during one round of matching."""

    worker: WorkerRecord
    order: int
    free: int
    stake: NRlc
    #: Slots in use.
    busy: int
    #: Lower comes first: who was right on chain, then who has stake; who failed least; who is least busy, so that work
    #: spreads over machines; heavier votes, so that few suffice; more stake. Claimed slots do not count. Kept, since a
    #: heap compares it many times for each change.
    rank: tuple[int, int, int, int, int, int]

    @classmethod
    def of(cls, worker: WorkerRecord, order: int = 0) -> Capacity:
        """A worker's free slots and stake at the start of a round. `order`: decides between workers that are equal
        otherwise.
        """
        promised = sum(item.stake for item in (*worker.held, *worker.pledged))
        busy, facts = len(worker.held), worker.facts
        failed = worker.failures + worker.blamed
        rank = (-worker.standing(NRlc(0)), failed, busy, -facts.weight, -facts.stake, order)
        return cls(worker, order, worker.free, NRlc(facts.stake - promised), busy, rank)

    def take(self, stake: NRlc) -> None:
        """Use one slot for a task that locks this stake (nRLC)."""
        self.free -= 1
        self.busy += 1
        self.stake = NRlc(self.stake - stake)
        self.rank = (*self.rank[:2], self.busy, *self.rank[3:])

    def __lt__(self, other: Capacity) -> bool:
        return self.rank < other.rank


def match(tasks: Iterable[TaskRecord], workers: Sequence[WorkerRecord]) -> list[Match]:
    """The matches of one round. `tasks`: most urgent first; `workers`: none that is cooling down.

    Tasks that other workers have already come after all others.
    """
    capacities = _capacities(workers)
    heapq.heapify(capacities)
    matches = []
    hopeless: set[tuple[object, ...]] = set()
    for task in sorted(tasks, key=lambda task: task.backup):
        if not capacities:
            break
        if lacks_challenge(task):
            continue
        # Capacities only shrink: what no worker could take, none can take later in the round.
        kind = (task.tag, stake_locked(task))
        if kind in hopeless:
            continue
        chosen, for_none = _choose(task, capacities)
        if chosen:
            matches.append(Match(task, tuple(capacity.worker for capacity in chosen)))
        elif for_none:
            hopeless.add(kind)
    return matches


def stake_locked(task: TaskRecord) -> NRlc:
    """nRLC that a worker's vote on the task locks; alone it locks nothing."""
    return NRlc(0) if task.mode is Mode.SOLO else task.worker_stake


def obstacle(task: TaskRecord, capacity: Capacity, now: float = float("inf")) -> Obstacle | None:
    """The first obstacle between a worker and a task, in the order of `Obstacle`; None if the worker can take the task.

    `now`: Unix seconds; without it, no worker counts as cooling down.
    """
    worker = capacity.worker
    checks = (
        (lacks_challenge(task), Obstacle.ENCLAVE),
        (worker.banned, Obstacle.BANNED),
        (worker.drained, Obstacle.DRAINED),
        (worker.lost, Obstacle.LOST),
        (not fits(task.tag, worker.tag), Obstacle.TAG),
        (not worker.facts.funded, Obstacle.GAS if worker.checked_at else Obstacle.UNCHECKED),
        (capacity.stake < stake_locked(task), Obstacle.STAKE),
        (not worker.successes and for_proven(task), Obstacle.NEWCOMERS),
        (had(task, worker), Obstacle.ASKED),
        (worker.rest_until > now, Obstacle.COOLING_DOWN),
        (capacity.free <= 0, Obstacle.BUSY),
    )
    return next((found for stands, found in checks if stands), None)


def for_proven(task: TaskRecord) -> bool:
    """Whether only workers that were right on chain before may be given the task."""
    return task.backup or task.newcomers <= 0 or spent_newcomers(task) >= MOST_NEWCOMERS


def had(task: TaskRecord, worker: WorkerRecord) -> bool:
    """Whether a worker was given the task, or holds a slot for it (another process is about to store the replicate, or
    died before it did).
    """
    return task.replicate(worker.wallet) is not None or any(item.task_id == task.task_id for item in worker.held)


def _capacities(workers: Sequence[WorkerRecord]) -> list[Capacity]:
    """The capacities of the workers that may still take something."""
    return [
        Capacity.of(worker, order)
        for order, worker in enumerate(workers)
        if worker.free and worker.facts.funded and not worker.banned and not worker.lost
    ]


def _choose(task: TaskRecord, capacities: list[Capacity]) -> tuple[list[Capacity], bool]:
    """Take the task's workers out of the heap, and put back those with capacity left. Also returned: whether the
    workers that could not take it could take no task of its kind.
    """
    chosen: list[Capacity] = []
    passed: list[Capacity] = []
    for_none = bool(task.wants)
    while capacities and (so_far := Match(task, tuple(capacity.worker for capacity in chosen))).wants:
        if not capacities[0].worker.successes and (for_proven(task) or so_far.newcomers <= 0):
            # The best of those left was never right on chain, so none of them was: a thousand need not be looked at.
            for_none = False
            break
        capacity = heapq.heappop(capacities)
        found = obstacle(task, capacity)
        if found is None and not capacity.worker.successes and so_far.newcomers <= 0:
            found = Obstacle.NEWCOMERS
        (chosen if found is None else passed).append(capacity)
        for_none = for_none and found not in (None, Obstacle.ASKED, Obstacle.NEWCOMERS)
    for capacity in chosen:
        capacity.take(stake_locked(task))
    for capacity in (*passed, *(capacity for capacity in chosen if capacity.free)):
        heapq.heappush(capacities, capacity)
    return chosen, for_none
