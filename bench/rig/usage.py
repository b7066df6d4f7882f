"""What the parts of a pool have used so far: RPC calls, broker messages, database operations, CPU seconds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from bench.rig.bench_pool import BenchPool
from config.connections.http_client import http_client
from config.connections.mongodb import client

#: Clock ticks per second in /proc.
_TICKS = os.sysconf("SC_CLK_TCK")
_CORES = os.cpu_count() or 1
#: Share of all cores in use above which the machine itself is the bound.
_CPU_BOUND = 0.85


@dataclass(frozen=True, slots=True)
class Spent:
    """Totals since the pool started; differences are what a run cost."""

    rpc_calls: float
    broker_messages: float
    mongodb_operations: float
    scheduler_cpu_seconds: float
    #: Of the worker machines' own processes: without their containers, which are the engine's.
    worker_cpu_seconds: float
    machine_cpu_seconds: float

    def __sub__(self, other: Spent) -> Spent:
        return Spent(
            self.rpc_calls - other.rpc_calls,
            self.broker_messages - other.broker_messages,
            self.mongodb_operations - other.mongodb_operations,
            self.scheduler_cpu_seconds - other.scheduler_cpu_seconds,
            self.worker_cpu_seconds - other.worker_cpu_seconds,
            self.machine_cpu_seconds - other.machine_cpu_seconds,
        )

    def bound_by(self, seconds: float) -> str:
        """What limits the speed of a run of `seconds`, in words: CPU or waiting."""
        share = self.machine_cpu_seconds / (seconds * _CORES)
        if share >= _CPU_BOUND:
            return f"CPU: {share:.0%} of {_CORES} cores in use"
        return f"waiting: {share:.0%} of {_CORES} cores in use"


class Usage:
    """Reads the counters of one bench pool's parts."""

    def __init__(self, bench_pool: BenchPool) -> None:
        self._bench_pool = bench_pool

    def read(self) -> Spent:
        """The totals now."""
        running = self._bench_pool.pool.running
        return Spent(
            rpc_calls=counted(self._bench_pool, "sluice_rpc_requests_total"),
            broker_messages=self._broker_messages(),
            mongodb_operations=self._mongodb_operations(),
            scheduler_cpu_seconds=tree_cpu_seconds(running["scheduler"].pid),
            worker_cpu_seconds=sum(
                tree_cpu_seconds(process.pid) for name, process in running.items() if name != "scheduler"
            ),
            machine_cpu_seconds=_machine_cpu_seconds(),
        )

    def _broker_messages(self) -> float:
        """Messages published in the pool's virtual hosts so far."""
        servers = self._bench_pool.servers
        credentials = servers.amqp_url.split("//", 1)[1].split("@", 1)[0].split(":", 1)
        names = (self._bench_pool.names.core, self._bench_pool.names.pool)
        with http_client(servers.rabbitmq_api, auth=(credentials[0], credentials[1]), timeout=5.0) as api:
            total = 0.0
            for vhost in names:
                stats = api.get(f"/api/vhosts/{vhost}").raise_for_status().json().get("message_stats", {})
                total += stats.get("publish", 0)
        return total

    def _mongodb_operations(self) -> float:
        """Operations of the MongoDB server so far."""
        status = client(self._bench_pool.servers.mongodb_uri).admin.command("serverStatus")
        counters = status["opcounters"]
        return float(sum(counters[name] for name in ("insert", "query", "update", "delete", "getmore", "command")))


def counted(bench_pool: BenchPool, name: str) -> float:
    """What all programs of the pool, machines too, have counted so far as metric `name`, whatever the labels."""
    return sum(_count_in(folder, name) for folder in bench_pool.pool.home.glob("*/metrics"))


def _count_in(folder: Path, name: str) -> float:
    """What one program's processes have counted in its metrics folder."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]  # not typed upstream
    return sum(sample.value for metric in registry.collect() for sample in metric.samples if sample.name == name)


def tree_cpu_seconds(pid: int) -> float:
    """User and system CPU time of a process, its living descendants and those already reaped, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(fields[place]) for place in (11, 12, 13, 14)) / _TICKS
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(tree_cpu_seconds(int(child)) for child in children)


def tree_kilobytes(pid: int) -> int:
    """Memory of a process and its living descendants, each page that is shared by its share (PSS), in KB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    own = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(tree_kilobytes(int(child)) for child in children)


def _machine_cpu_seconds() -> float:
    """CPU time in which this machine's cores were not idle, summed over all cores, in seconds."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / _TICKS
