"""What thousands of machines cost RabbitMQ that have nothing to do, and how long they are away when it restarts.

    sign in, each its own broker user and two queues ──► connect as a machine does, once for each queue
        ──► RabbitMQ stops and starts again ──► all connect again at once

The machines are connections of one process, which shares the processors with the servers.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kombu import Connection, Consumer, Queue
from kombu.exceptions import OperationalError

from bench.crowds.workerdrop import AT_ONCE, UNLIMITED
from bench.rig.bench_pool import BenchPool, BrokenPromise, prepared_pool
from bench.rig.fresh_wallets import asked_again, offer
from bench.rig.usage import tree_kilobytes
from config.celery_apps import connect_machine, machine_app
from config.topology import worker_queues
from ops.pool.servers import bring_up, own_process
from ops.stack.parts import StackPart
from protocol.errors import NotReady
from protocol.ethereum.signing import Key
from protocol.wire import Session
from workers.pool.api import PoolApi

#: Seconds between two tries of a machine to connect; a try at once would only delay the other machines.
RETRY_SECONDS = 1.0
#: Seconds in which the least memory counts: more than RabbitMQ's `background_gc_target_interval`.
SETTLE_SECONDS = 30.0
#: Most of the figures for up to 2,000 machines. KB: 353 measured of 1,000 while others kept this machine busy, where
#: memory comes back later; 146 of it before they connect, the rest two connections. Seconds: of RabbitMQ's restart, and
#: until all are back after it.
MOST = {"rabbitmq_kilobytes_per_machine": 450, "restart_seconds": 60.0, "all_back_seconds": 60.0}
#: Least, for each core of this machine: a sign-in takes 27 ms of CPU, not half of it RabbitMQ's, which makes two
#: queues, a user and its rights, and the machines that sign in are on the same cores.
LEAST = {"enrolments_per_second_and_core": 10.0}
#: Seconds for all machines to be back.
BACK_SECONDS = 600.0


@dataclass
class Connected:
    """One machine: its session, and its connections while it has any."""

    key: Key
    session: Session
    ca_file: Path | None
    connections: list[Connection] = field(default_factory=list)

    def connect(self, until: float) -> None:
        """Consume both queues, by a connection each as a machine's two programs do. Raises NotReady at `until`
        (monotonic seconds).
        """
        app = machine_app(self.key.wallet)
        connect_machine(app, self.session.broker, self.ca_file)
        for queue in worker_queues(self.key.wallet):
            self.connections.append(_consuming(app.connection(heartbeat=0), queue, until))

    def let_go(self) -> None:
        """Close the connections, of which the broker may have closed its end already."""
        for connection in self.connections:
            with suppress(OSError, *connection.connection_errors):
                connection.close()
        self.connections.clear()


def _consuming(connection: Connection, queue: Queue, until: float) -> Connection:
    """The connection once it consumes the queue. Raises NotReady at `until` (monotonic seconds)."""
    away = (*connection.recoverable_connection_errors, *connection.recoverable_channel_errors, OperationalError)
    while time.monotonic() < until:
        with suppress(*away):
            Consumer(connection, queues=[queue], on_message=lambda message: message.ack()).consume()
            return connection
        connection.close()
        time.sleep(RETRY_SECONDS)
    raise NotReady(part="RabbitMQ", seconds=BACK_SECONDS, log="", why=f"{queue.name} could not be consumed.")


def run(*, machines: int) -> Iterator[str]:
    """A line of JSON for the sign-ins, one for the connections, one for the restart. Raises BrokenPromise if a machine
    was refused or did not come back, and with a sentence for each limit that was exceeded.
    """
    wrong: list[str] = []
    for line in _measure(machines):
        yield json.dumps(line)
        wrong += broken(line)
    if wrong:
        raise BrokenPromise(what="RabbitMQ", why="\n".join(wrong))


def broken(line: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each limit that a line's figures exceed."""
    for name, most in MOST.items():
        if line.get(name, 0) > most:
            yield f"{line['case']}: {name}: {line[name]:g}, more than {most:g}."
    for name, least in LEAST.items():
        if line.get(name, least) < least:
            yield f"{line['case']}: {name}: {line[name]:g}, less than {least:g}."


def _measure(machines: int) -> Iterator[dict[str, Any]]:
    """The figures of `run`."""
    with prepared_pool(block_time=1.0, workers=0, env=UNLIMITED) as bench_pool:
        bench_pool.pool.start_scheduler()
        empty, began = _kilobytes(), time.monotonic()
        found = _signed_in(bench_pool, machines)
        took = time.monotonic() - began
        line = {
            "case": "enrolled",
            "machines": machines,
            "enrolments_per_second": round(machines / took, 1),
            "enrolments_per_second_and_core": round(machines / took / (os.cpu_count() or 1), 1),
        }
        yield line | {"rabbitmq_kilobytes_per_machine": _each(empty, machines)}
        try:
            seconds = _connected(found)
            line = {"case": "connected", "machines": machines, "seconds": round(seconds, 1)}
            yield line | {"rabbitmq_kilobytes_per_machine": _each(empty, machines)}
            yield _restart(found) | {"rabbitmq_kilobytes_per_machine": _each(empty, machines)}
        finally:
            for machine in found:
                machine.let_go()


def _signed_in(bench_pool: BenchPool, machines: int) -> list[Connected]:
    """Machines that have signed in. Raises as `PoolApi.sign_in`."""
    api = PoolApi(bench_pool.pool.api_url)
    config, ca_file = asked_again(api.config), bench_pool.pool.env.get("SLUICE_AMQP_CA_FILE")

    def sign_in(number: int) -> Connected:
        """A new machine that has signed in."""
        key = Key(secrets.token_bytes(32))
        session = asked_again(partial(api.sign_in, key, config, offer(f"machine-{number}", 1)))
        return Connected(key, session, Path(ca_file) if ca_file else None)

    try:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(sign_in, range(machines)))
    finally:
        api.close()


def _connected(machines: Sequence[Connected]) -> float:
    """Seconds until all of them consume. Raises BrokenPromise."""
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        trying = [threads.submit(machine.connect, began + BACK_SECONDS) for machine in machines]
    lost = sum(one.exception() is not None for one in trying)
    if lost:
        raise BrokenPromise(what="RabbitMQ", why=f"{lost} of {len(machines)} machines could not connect.")
    return time.monotonic() - began


def _restart(machines: Sequence[Connected]) -> dict[str, object]:
    """Stop RabbitMQ and start it again: seconds for each, and until all machines are back."""
    began = time.monotonic()
    own_process(StackPart.RABBITMQ).stop(timeout=BACK_SECONDS)
    for machine in machines:
        machine.let_go()
    stopped = time.monotonic()
    bring_up()
    started = time.monotonic()
    back = _connected(machines)
    return {
        "case": "restarted",
        "machines": len(machines),
        "stop_seconds": round(stopped - began, 1),
        "start_seconds": round(started - stopped, 1),
        "restart_seconds": round(started - began, 1),
        "all_back_seconds": round(back, 1),
    }


def _each(empty: int, machines: int) -> int:
    """KB of RabbitMQ's memory for each machine. `empty`: without any."""
    return round((_kilobytes() - empty) / machines)


def _kilobytes() -> int:
    """The least memory of RabbitMQ within SETTLE_SECONDS, in KB (PSS)."""
    until, least = time.monotonic() + SETTLE_SECONDS, None
    while least is None or time.monotonic() < until:
        now = tree_kilobytes(own_process(StackPart.RABBITMQ).pid)
        least = now if least is None else min(least, now)
        time.sleep(1.0)
    return least
