"""How many more tasks the live machines can serve: demands are put on their free slots, one after the other. Pure.

A task of trust 3 takes a slot on each of two machines, and stake on both. `Room.put` takes slots where every task can
have machines of its own, so what was put is never more than can be served.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.domain.match import Capacity, stake_locked
from pipeline.domain.records import TaskRecord, WorkerRecord
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
    """What one task takes: a slot on each of so many machines that offer the tag, and nRLC of stake on each."""

    tag: Hash32
    machines: int = 1
    stake: NRlc = NRlc(0)  # noqa: RUF009 - a NewType call has no state

    @classmethod
    def of(cls, order: WorkerpoolOrder, worker_stake_ratio: int) -> Demand:
        """Of a task that is bought with the order, with the trust that takes most machines."""
        # Alone, for trust 1, a worker locks nothing.
        stake = order.workerpoolprice * worker_stake_ratio // 100 if order.trust > 1 else 0
        return cls(order.tag, max(1, replicates_needed(order.trust, {})), NRlc(stake))


@dataclass(slots=True)
class _Machine:
    tag: Hash32
    free: int
    stake: NRlc
    #: Bits that it offers: what few machines can do is left to those who demand it.
    bits: int

    def room(self, stake: NRlc) -> int:
        """Tasks that it can take if each locks so much stake."""
        return min(self.free, self.stake // stake) if stake else self.free

    def take(self, tasks: int, stake: NRlc) -> None:
        self.free -= tasks
        self.stake = NRlc(self.stake - tasks * stake)


class Room:
    """The free slots of live machines, less what was put on them."""

    def __init__(self, machines: Iterable[WorkerRecord]) -> None:
        """`machines`: those that could be given a task now, with or without a free slot."""
        capacities = [Capacity.of(machine) for machine in machines]
        self._machines = [
            _Machine(each.worker.tag, each.free, each.stake, int.from_bytes(to_bytes(each.worker.tag)).bit_count())
            for each in capacities
            if each.free > 0
        ]

    @classmethod
    def beside(cls, machines: Sequence[WorkerRecord], waiting: Sequence[TaskRecord]) -> Room:
        """The room that tasks leave which are sold already and wait for a machine."""
        room = cls(machines)
        held: dict[TaskId, set[Wallet]] = defaultdict(set)
        for machine in machines:
            for item in machine.held:
                held[item.task_id].add(machine.wallet)
        wanted: Counter[Demand] = Counter()
        for task in waiting:
            # Slots that are taken for it and not in its row yet.
            on_their_way = held[task.task_id] - {item.wallet for item in task.replicates}
            wanted[Demand(task.tag, stake=stake_locked(task))] += max(0, task.wants - len(on_their_way))
        for demand, count in wanted.items():
            room.put(demand, count)
        return room

    @property
    def free(self) -> int:
        """Free slots left."""
        return sum(machine.free for machine in self._machines)

    def fits(self, demand: Demand, tasks: int) -> bool:
        """Put so many tasks if all of them fit; whether they do."""
        if self._most(demand, tasks) < tasks:
            return False
        self.put(demand, tasks)
        return True

    def put(self, demand: Demand, tasks: int) -> int:
        """Put as many of these tasks as fit; returns how many."""
        count = self._most(demand, tasks)
        left = count * demand.machines
        for machine in self._able(demand):
            taken = min(left, count, machine.room(demand.stake))
            machine.take(taken, demand.stake)
            left -= taken
        assert not left, "there was room for all of them"
        return count

    def _most(self, demand: Demand, tasks: int) -> int:
        """The most of these tasks that fit, each on machines of its own.

        `count` tasks fit if their slots can be taken with at most `count` on each machine: dealt out in turn, no task
        then comes to the same machine twice. More tasks never fit better, so the bound is found by halving.
        """
        rooms = [machine.room(demand.stake) for machine in self._able(demand)]
        least, most = 0, tasks
        while least < most:
            count = (least + most + 1) // 2
            enough = sum(min(room, count) for room in rooms) >= count * demand.machines
            least, most = (count, most) if enough else (least, count - 1)
        return least

    def _able(self, demand: Demand) -> list[_Machine]:
        """Machines that can take one, in the order in which they are used."""
        able = [each for each in self._machines if fits(demand.tag, each.tag) and each.room(demand.stake) > 0]
        return sorted(able, key=lambda each: (each.bits, -each.free))
