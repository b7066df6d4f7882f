"""How many more tasks the live machines can serve: demands are put on their free slots, one after the other. Pure.

A task of trust 3 takes a slot on each of two machines, and stake on both. Above trust `replicas.NEWCOMERS_DECIDE`, one
of its machines must be proven, that is: it was right on chain before. `put` takes slots where every task can have
machines of its own, so what was put is never more than can be served.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline.domain.match import Capacity, for_proven, stake_locked
from pipeline.domain.records import TaskRecord, WorkerRecord
from pipeline.domain.replicas import NEWCOMERS_DECIDE
from protocol.ethereum.hexbytes import to_bytes
from protocol.poco.orders import WorkerpoolOrder
from protocol.poco.tags import fits
from protocol.poco.weights import replicates_needed
from protocol.types import Hash32, NRlc, TaskId, Wallet


@dataclass(frozen=True, slots=True)
class PoolTerms:
    """What the hub says of the pool: its owner's free stake in nRLC, and its workers' stake in percent of the price."""

    stake: NRlc
    worker_stake_ratio: int


@dataclass(frozen=True, slots=True)
class Demand:
    """What one task takes: a slot on each of so many machines that offer the tag, and nRLC of stake on each. `proven`:
    how many of the machines must have been right on chain before.
    """

    tag: Hash32
    machines: int = 1
    stake: NRlc = NRlc(0)  # noqa: RUF009 - a NewType call has no state
    proven: int = 0

    @classmethod
    def of(cls, order: WorkerpoolOrder, worker_stake_ratio: int) -> Demand:
        """What a task needs that is bought with the order, with the trust that takes most machines."""
        # Alone, for trust 1, a worker locks nothing.
        stake = order.workerpoolprice * worker_stake_ratio // 100 if order.trust > 1 else 0
        # As many newcomers as would decide it together are never asked (`replicas.newcomers_left`).
        proven = 1 if order.trust > NEWCOMERS_DECIDE else 0
        return cls(order.tag, max(1, replicates_needed(order.trust, {})), NRlc(stake), proven)


@dataclass(slots=True)
class _Machine:
    """A live machine with what is left of its slots and stake."""

    tag: Hash32
    free: int
    stake: NRlc
    #: Number of tag bits that it offers: versatile machines are used last.
    bits: int
    #: Whether it was right on chain before.
    proven: bool

    def capacity(self, stake: NRlc) -> int:
        """Tasks that it can take if each locks so much stake."""
        return min(self.free, self.stake // stake) if stake else self.free

    def take(self, tasks: int, stake: NRlc) -> None:
        """Count tasks as taken by the machine."""
        self.free -= tasks
        self.stake = NRlc(self.stake - tasks * stake)


class SpareCapacity:
    """The free slots of live machines, less what was put on them."""

    def __init__(self, machines: Iterable[WorkerRecord], *, newcomers_decide: bool = False) -> None:
        """`machines`: those that could be given a task now, with or without a free slot. `newcomers_decide`: whether
        the pool has no proven machine to wait for, so that newcomers decide tasks of any trust (`flow.new_pool`).
        """
        capacities = [Capacity.of(machine) for machine in machines]
        self._newcomers_decide = newcomers_decide
        self._machines = [
            _Machine(
                each.worker.tag,
                each.free,
                each.stake,
                int.from_bytes(to_bytes(each.worker.tag)).bit_count(),
                each.worker.successes > 0,
            )
            for each in capacities
            if each.free > 0
        ]

    @classmethod
    def beside(
        cls, machines: Sequence[WorkerRecord], waiting: Sequence[TaskRecord], *, newcomers_decide: bool = False
    ) -> SpareCapacity:
        """What is left of the machines' capacity beside `waiting`: tasks that are sold and still want machines."""
        capacity = cls(machines, newcomers_decide=newcomers_decide)
        held: dict[TaskId, dict[Wallet, bool]] = defaultdict(dict)
        for machine in machines:
            for item in machine.held:
                held[item.task_id][machine.wallet] = machine.successes > 0
        wanted: Counter[Demand] = Counter()
        for task in waiting:
            # Slots that are taken for it and not in its row yet.
            given = {item.wallet for item in task.replicates}
            on_their_way = [proven for wallet, proven in held[task.task_id].items() if wallet not in given]
            count = max(0, task.wants - len(on_their_way))
            proven = min(count, max(0, _proven_wanted(task) - sum(on_their_way)))
            if count:
                wanted[Demand(task.tag, count, stake_locked(task), proven)] += 1
        for demand, count in wanted.items():
            capacity._put_waiting(demand, count)
        return capacity

    @property
    def free(self) -> int:
        """Free slots left."""
        return sum(machine.free for machine in self._machines)

    def fits(self, demand: Demand, tasks: int) -> bool:
        """Put `tasks` tasks if all of them fit; returns whether they did."""
        if self._most(demand, tasks) < tasks:
            return False
        self.put(demand, tasks)
        return True

    def put(self, demand: Demand, tasks: int) -> int:
        """Put as many of these tasks as fit; returns how many. Tasks that need proven machines take those first; others
        take them last.
        """
        count = self._most(demand, tasks)
        able, proven = self._able(demand), count * self._proven(demand)
        # Dealt out in turn, these first, each task gets as many of them as it needs.
        taken = _taken([machine.capacity(demand.stake) if machine.proven else 0 for machine in able], proven, count)
        left = [min(machine.capacity(demand.stake), count) - first for machine, first in zip(able, taken, strict=True)]
        rest = _taken(left, count * demand.machines - proven, count)
        for machine, first, then in zip(able, taken, rest, strict=True):
            machine.take(first + then, demand.stake)
        return count

    def _put_waiting(self, demand: Demand, tasks: int) -> None:
        """Put tasks that are sold: those for which machines are missing take those that there are."""
        for machines in range(demand.machines, 0, -1):
            tasks -= self.put(replace(demand, machines=machines, proven=min(demand.proven, machines)), tasks)

    def _most(self, demand: Demand, tasks: int) -> int:
        """The most of these tasks that fit, each on machines of its own.

        A number of tasks fits if their slots can be taken with at most one slot per task on each machine: dealt out in
        turn, no task then comes to the same machine twice. The same holds for the slots that proven machines must take.
        More tasks never fit better, so the bound is found by halving.
        """
        able = self._able(demand)
        capacities = [machine.capacity(demand.stake) for machine in able]
        proven_capacities = [machine.capacity(demand.stake) for machine in able if machine.proven]
        proven = self._proven(demand)
        least, most = 0, tasks
        while least < most:
            count = (least + most + 1) // 2
            enough = sum(min(capacity, count) for capacity in capacities) >= count * demand.machines
            enough = enough and sum(min(capacity, count) for capacity in proven_capacities) >= count * proven
            least, most = (count, most) if enough else (least, count - 1)
        return least

    def _able(self, demand: Demand) -> list[_Machine]:
        """Machines that can take one of these tasks, in the order in which they are used."""
        able = [each for each in self._machines if fits(demand.tag, each.tag) and each.capacity(demand.stake) > 0]
        return sorted(able, key=lambda each: (each.bits, each.proven, -each.free))

    def _proven(self, demand: Demand) -> int:
        """Proven machines that each of these tasks takes."""
        return 0 if self._newcomers_decide else demand.proven


def _taken(capacities: Sequence[int], wanted: int, most: int) -> list[int]:
    """Slots to take of each machine, at most `most` of one, in their order."""
    found = []
    for capacity in capacities:
        found.append(min(wanted, most, capacity))
        wanted -= found[-1]
    assert not wanted, "there was capacity for all of them"
    return found


def _proven_wanted(task: TaskRecord) -> int:
    """Proven machines that a waiting task cannot do without. Up to trust NEWCOMERS_DECIDE, newcomers get it in the end
    where none is free, unless they had it already and did nothing.
    """
    if task.trust <= NEWCOMERS_DECIDE and not task.backup:
        return 0
    return task.wants if for_proven(task) else max(0, task.wants - task.newcomers)
