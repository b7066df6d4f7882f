"""Each member of a pool of clusters is killed, and cut off, in the middle of a bag of mixed trust.

    three RabbitMQ nodes, three MongoDB members, two scheduler hosts, machines behind one address of the API
    buy ──► a third is COMPLETED ──► kill -9 or partition of one member ──► all COMPLETED? how much later?
                                                                        ──► the member is brought back

A partition lasts until the bag is over. The undisturbed seconds are those of a bag just before, on the same pool. Needs
root, for partitions.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.chaos.figures import poll_until_zero
from bench.faults import nonce_gaps, stake_locked
from bench.rig.bench_pool import BenchPool, BrokenPromise, prepared_pool
from bench.rig.front import open_front
from bench.takeover import buy_mixed
from config.settings import read_settings
from config.values.stack_settings import StackSettings
from ops.pool.local import WORKER, WorkerMachine
from ops.pool.servers import bring_up
from ops.stack import ports
from ops.stack.clusters import cluster, members, partition
from ops.stack.clusters.members import Member
from ops.stack.clusters.partition import Side
from ops.stack.parts import StackPart
from ops.stack.servers import mongodb
from protocol.poco.view import TaskStatus

#: Machines, and containers at a time on each.
MACHINES, SLOTS = 5, 2
#: Tasks of a bag that are COMPLETED when the fault strikes: one of so many.
STRUCK_PART = 3
#: Most seconds that a bag may take longer than the undisturbed one.
EXTRA_SECONDS = 15.0
#: Seconds in which stakes and nonces have to be as they should, after a bag's last end on chain.
SETTLE_SECONDS = 60.0
#: Seconds after which a bag counts as stuck.
STUCK_SECONDS = 420.0
#: The module of a machine without containers.
NULL_MACHINE = ("bench.rig.null_machine",)
#: Names of the scheduler hosts.
HOSTS = ("host-1", "host-2")
#: Bags that prove the machines.
PROVING = 2
KILL, CUT = "kill", "partition"
FAULTS = (KILL, CUT)


@dataclass(frozen=True, slots=True)
class Target:
    """One member of a cluster (`part`), or a scheduler host. `number`: from 1."""

    name: str
    number: int
    part: StackPart | None = None


TARGETS = (
    *(Target(f"{part}-{number}", number, part) for part in reversed(cluster.PARTS) for number in members.NUMBERS),
    *(Target(name, number) for number, name in enumerate(HOSTS, 1)),
)


@dataclass(frozen=True, slots=True)
class Bag:
    """How a bag ended. `leads`: whether the member that was struck was the primary; None: it has no such role."""

    completed: int
    seconds: float
    leads: bool | None


@dataclass(frozen=True, slots=True)
class Host:
    """A scheduler host: its ports in a row, and the group of its processes."""

    name: str
    api_port: int
    group: int

    @property
    def env(self) -> dict[str, str]:
        """The host's own settings."""
        return {
            "SLUICE_HOST_NAME": self.name,
            "SLUICE_API_PORT": str(self.api_port),
            "SLUICE_OPERATIONS_PORT": str(self.api_port + 1),
            "SLUICE_FLOWER_PORT": str(self.api_port + 2),
        }

    @property
    def side(self) -> Side:
        """What a partition of it cuts off."""
        return Side(self.group, "127.0.0.1", (self.api_port, self.api_port + 2))


@dataclass(frozen=True, slots=True)
class ClusterPool:
    """The pool, and how its members are struck and brought back."""

    bench_pool: BenchPool
    hosts: Sequence[Host]

    def strike(self, target: Target, fault: str) -> None:
        """Kill a member, or cut it off. Raises MissingTool."""
        if target.part is None:
            host = self.hosts[target.number - 1]
            if fault == CUT:
                partition.cut(host.side)
            else:
                self.bench_pool.pool.running[host.name].kill()
        elif fault == CUT:
            cluster.cut(target.part, self._member(target), StackSettings())
        elif (process := cluster.process(target.part, self._member(target))) is not None:
            process.stop(how=signal.SIGKILL)

    def bring_back(self, target: Target, fault: str) -> None:
        """End what `strike` did, and wait until the member serves again. Raises NotReady."""
        if target.part is not None:
            if fault == CUT:
                cluster.heal(self._member(target))
            cluster.restart(target.part, target.number, read_settings(), StackSettings())
            return
        host, pool = self.hosts[target.number - 1], self.bench_pool.pool
        if fault == CUT:
            partition.heal([host.group])
        else:
            pool.restart(host.name)
        pool.await_scheduler(host.name)

    def lead(self, target: Target) -> None:
        """Make a member of MongoDB primary before it is struck: the loss of another member would not be noticed."""
        if target.part is StackPart.MONGODB:
            mongodb.step_up(self._member(target), StackSettings().mongodb_port)

    def leads(self, target: Target) -> bool | None:
        """Whether it is the one member that takes writes; None for what has no such member."""
        if target.part is not StackPart.MONGODB:
            return None
        return mongodb.is_primary(self._member(target), StackSettings().mongodb_port)

    def heal(self) -> None:
        """End all partitions."""
        partition.heal([host.group for host in self.hosts])
        for target in TARGETS:
            if target.part is not None:
                cluster.heal(self._member(target))

    def _member(self, target: Target) -> Member:
        """The member of the cluster that a target names."""
        assert target.part is not None
        return cluster.of_part(target.part, read_settings().home, StackSettings())[target.number - 1]


def run(*, tasks: int, only: Sequence[str] = (), fault: Sequence[str] = (), null: bool = False) -> Iterator[str]:
    """A line of JSON for each member and fault. `only`: names of members; `fault`: kill, partition; default all.
    `null`: machines that run no container.

    Raises BrokenPromise with a sentence for each bag that was not whole, or late.
    """
    wrong: list[str] = []
    with _cluster_pool(NULL_MACHINE if null else WORKER) as pool:
        for _ in range(PROVING):
            _run_bag(pool, tasks)
        for target in TARGETS:
            if only and target.name not in only:
                continue
            # Again for each member: whatever else the machine does changes by the minute.
            undisturbed = _run_bag(pool, tasks).seconds
            for kind in FAULTS:
                if fault and kind not in fault:
                    continue
                bag = _run_bag(pool, tasks, target, kind)
                extra = bag.seconds - undisturbed
                figures: dict[str, Any] = {
                    "member": target.name,
                    "fault": kind,
                    "leads": bag.leads,
                    "tasks": tasks,
                    "completed": bag.completed,
                    "seconds": round(bag.seconds, 1),
                    "undisturbed_seconds": round(undisturbed, 1),
                    "extra_seconds": round(extra, 1),
                    "stake_locked": poll_until_zero(lambda: stake_locked(pool.bench_pool), SETTLE_SECONDS),
                    "nonce_gaps": poll_until_zero(lambda: nonce_gaps(pool.bench_pool), SETTLE_SECONDS),
                }
                yield json.dumps(figures)
                wrong += broken(figures)
    if wrong:
        raise BrokenPromise(what="A bag with a fault", why="\n".join(wrong))


def broken(figures: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each promise that a bag with these figures broke."""
    struck = f"{figures['fault']} of {figures['member']}"
    if figures["completed"] != figures["tasks"]:
        yield f"{struck}: {figures['completed']} of {figures['tasks']} tasks are COMPLETED."
    if figures["extra_seconds"] > EXTRA_SECONDS:
        yield f"{struck}: {figures['extra_seconds']:g} s longer, more than {EXTRA_SECONDS:g}."
    for name in ("stake_locked", "nonce_gaps"):
        if figures[name]:
            yield f"{struck}: {name}: {figures[name]}, not 0."


def _run_bag(pool: ClusterPool, tasks: int, target: Target | None = None, fault: str = "") -> Bag:
    """A bag in whose middle `target` is struck; it is brought back before the end."""
    bench_pool, leads = pool.bench_pool, None
    if target is not None:
        pool.lead(target)
    begun = time.monotonic()
    deals = buy_mixed(bench_pool, tasks)
    if target is not None:
        for views in bench_pool.watch(deals, threading.Event()):
            if sum(view.status is TaskStatus.COMPLETED for view in views.values()) >= tasks // STRUCK_PART:
                break
        leads = pool.leads(target)
        pool.strike(target, fault)
    views = bench_pool.wait(deals)
    seconds = time.monotonic() - begun
    if target is not None:
        pool.bring_back(target, fault)
    return Bag(sum(view.status is TaskStatus.COMPLETED for view in views.values()), seconds, leads)


@contextmanager
def _cluster_pool(module: Sequence[str]) -> Iterator[ClusterPool]:
    """A pool on clusters, with two scheduler hosts and MACHINES machines that run `module`."""
    servers = bring_up(clustered=True)
    front, first, second = ports.free_port(), ports.free_port(3), ports.free_port(3)
    hosts = []
    for number, (name, port) in enumerate(zip(HOSTS, (first, second), strict=True), 1):
        group = members.own_group(port, number)
        if group is None:
            raise partition.needs_root()
        hosts.append(Host(name, port, group))
    with (
        open_front(front, [host.api_port for host in hosts]) as url,
        prepared_pool(block_time=1.0, workers=MACHINES, servers=servers, env={"SLUICE_API_URL": url}) as bench_pool,
    ):
        bench_pool.timeout = STUCK_SECONDS
        pool = bench_pool.pool
        secret = {"SLUICE_TOKEN_SECRET_FILE": str((bench_pool.home / "token.secret").absolute())}
        for host in hosts:
            pool.start_scheduler(secret | host.env, name=host.name, group=host.group)
        machines = enumerate(pool.on_chain.workers, 1)
        pool.start_machines([WorkerMachine(f"worker-{number}", wallet, SLOTS, module) for number, wallet in machines])
        made = ClusterPool(bench_pool, hosts)
        try:
            yield made
        finally:
            made.heal()
