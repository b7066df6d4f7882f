"""Where a bag's RPC calls, messages, database operations and CPU seconds go: by method, queue, query, process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kombu import Connection
from prometheus_client.multiprocess import MultiProcessCollector

from bench.rig.bench_pool import BenchPool
from bench.rig.usage import tree_cpu_seconds
from config.connections.mongodb import client

#: Bytes of MongoDB's own profile: some 2,000 operations a megabyte.
_PROFILE_BYTES = 2**27
#: Entries of each list.
_MOST = 60


class Breakdown:
    """Watches one bag. MongoDB's profiler and a second consumer cost some CPU, so its figures are shares, not costs."""

    def __init__(self, bench_pool: BenchPool) -> None:
        """Start watching."""
        self._pool = bench_pool
        servers, names = bench_pool.servers, bench_pool.names
        self._db = client(servers.mongodb_uri)[names.database]
        # A bag before this one has left what it saw.
        self._db.drop_collection("system.profile")
        self._db.create_collection("system.profile", capped=True, size=_PROFILE_BYTES)
        self._db.command("profile", 2)
        # A copy of every message of vhost `core`.
        channel: Any = Connection(f"{servers.amqp_url}/{names.core}").default_channel
        self._channel, self._tap = channel, str(channel.queue_declare("", exclusive=True).queue)
        for exchange in ("sluice", "celeryev"):
            channel.queue_bind(self._tap, exchange, "#")
        self._calls, self._seconds = self._rpc_calls(), self._cpu_seconds()
        self._commands = self._mongodb_commands()

    def per_task(self, tasks: float) -> Mapping[str, Mapping[str, float]]:
        """What was done since the start, by kind, per task; most first."""
        self._db.command("profile", 0)
        kinds = {
            "rpc_calls": self._rpc_calls() - self._calls,
            "broker_messages": self._messages(),
            "mongodb_commands": self._mongodb_commands() - self._commands,
            "mongodb_operations": Counter(_shape(row) for row in self._db["system.profile"].find()),
            "cpu_seconds": self._cpu_seconds() - self._seconds,
        }
        return {
            kind: {name: round(number / tasks, 4) for name, number in counts.most_common(_MOST)}
            for kind, counts in kinds.items()
        }

    def _rpc_calls(self) -> Counter[str]:
        """By process and method: the scheduler's processes by their names, all machines' together."""
        counts: Counter[str] = Counter()
        names = self._process_names()
        for file in self._pool.pool.home.glob("*/metrics/counter_*.db"):
            of_machine = file.parent.parent.name != "scheduler"
            whose = "machines" if of_machine else names.get(int(file.stem.rpartition("_")[2]), "scheduler")
            merged = MultiProcessCollector.merge([str(file)])  # type: ignore[no-untyped-call]  # not typed upstream
            for sample in (sample for metric in merged for sample in metric.samples):
                if sample.name == "sluice_rpc_requests_total":
                    counts[f"{whose} {sample.labels['method']}"] += int(sample.value)
        return counts

    def _process_names(self) -> dict[int, str]:
        """The scheduler's processes by id, children by their parent's name."""
        files = (self._pool.pool.home / "scheduler" / "run").rglob("*.pid")
        return {pid: file.stem for file in files for pid in _tree(int(file.read_text()))}

    def _mongodb_commands(self) -> Counter[str]:
        """How often the server was given each command, for any database: also those that its profile leaves out, as the
        heartbeats of clients.
        """
        kinds = self._db.client.admin.command("serverStatus")["metrics"]["commands"]
        return Counter({name: int(kind["total"]) for name, kind in kinds.items() if isinstance(kind, dict)})

    def _messages(self) -> Counter[str]:
        """How many messages were published since the last call, by exchange and task."""
        counts: Counter[str] = Counter()
        while (message := self._channel.basic_get(self._tap, no_ack=True)) is not None:
            info = message.delivery_info
            counts[f"{info['exchange']} {message.headers.get('task') or info['routing_key']}"] += 1
        return counts

    def _cpu_seconds(self) -> Counter[Any]:
        """CPU seconds so far by process, with its children: the scheduler's by their names, all machines' together."""
        counts: Counter[Any] = Counter()
        for file in self._pool.pool.home.glob("*/run/**/*.pid"):
            whose = "" if file.relative_to(self._pool.pool.home).parts[0] == "scheduler" else "machines "
            counts.update({f"{whose}{file.stem}": tree_cpu_seconds(int(file.read_text()))})
        return counts


def _tree(pid: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _tree(int(child)))]


def _shape(row: Mapping[str, Any]) -> str:
    """An operation without its values: collection, kind, names of what it asks for and sets."""
    command: Mapping[str, Any] = row.get("command", {})
    asked = command.get("filter", command.get("q", command.get("query", {}))) or {}
    change = command.get("u", command.get("update", {})) or {}
    stages = change if isinstance(change, list) else command.get("pipeline", [change])
    changed = [name for stage in stages for fields in stage.values() if isinstance(fields, dict) for name in fields]
    kind = next(iter(command), "") if row["op"] == "command" else row["op"]
    return f"{row['ns'].partition('.')[2]} {kind} {','.join(map(str, asked))} > {','.join(changed)}"[:150]
