"""the pool that an operator looks after: machines, a bag of tasks and the operator's API, for troubles to be made in.

It is stepped by hand as in `outage_pool`, whose real parts it has. Its machines say what a test says for them.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from chain.lane.rules.poco import poco_lane
from config import topology
from config.celery_apps import core_app
from config.http_server.server import http_server
from config.settings import Settings
from ops.market import contracts
from ops.market.match import Matched
from ops.poco.sender import TxRequest
from ops.poco.state import PocoState
from ops.stack import ports
from ops.stack.stack import Stack
from pipeline.api.application import create_operations_app
from pipeline.api.limits.recent_answers import RecentAnswers
from pipeline.api.monitor import Monitor
from pipeline.api.services import Services
from pipeline.domain.records import TaskRecord
from protocol.ethereum.signing import Key
from protocol.types import ZERO_HASH, Hash32, NRlc, Wallet
from protocol.wire import Capabilities, Step
from tests.integration.pipeline.trouble.outage_pool import OutagePool, open_outage_pool
from tests.waiting import wait_until

#: Unless a test wants fewer.
MACHINES, TASKS = 10, 500
#: What each machine has, in nRLC and wei.
STAKE, BALANCE = NRlc(10**6), 10**18
#: Seconds of a step: as few as blocks can be apart, since the clocks of MongoDB and RabbitMQ are the machine's.
STEP = 1.0
#: Seconds of the category of its tasks, which take votes for seven times as long: through all troubles; its number.
CATEGORY, XS = 300, 0
#: Blocks after which a transaction is final.
FINALITY = 2
#: Seconds after which the parts are checked anew.
ANEW = 3.0


@dataclass
class OperationsPort:
    """Serves the operator's API on a port, as its process does, as long as it is told to."""

    settings: Settings
    application: FastAPI
    port: int

    def start(self) -> None:
        """Serve, until `stop`."""
        self._server = http_server(self.settings, self.application, "127.0.0.1", self.port)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, 10.0, what="the operations port")

    def stop(self) -> None:
        """Serve no longer."""
        self._server.should_exit = True
        self._thread.join()


@dataclass
class OperatedPool:
    """A pool whose machines are heard of in each step, and its operator's API.

    `wallets`: of its machines; `bulk`: a deal of all its tasks.
    """

    pool: OutagePool
    operations: OperationsPort
    readers: Any
    wallets: list[Wallet]
    bulk: Matched = field(init=False)
    #: By the number of a machine.
    tags: dict[int, Hash32] = field(default_factory=dict)

    @property
    def services(self) -> Services:
        found: Services = self.operations.application.state.services
        return found

    def step(self, times: int = 1, seconds: float = STEP) -> None:
        """Some seconds of everybody's life."""
        for _ in range(times):
            self.pool.step(seconds)
            for wallet in self.wallets:
                self.pool.store.workers.mark_seen(wallet, self.pool.now)
            self.look()

    def look(self, seconds: float = 0.0) -> None:
        """Have the parts checked after so many seconds, as the API's own thread does every few seconds."""
        self.pool.now += seconds
        self.services.monitor.report().result()

    def sign_in(self, number: int, tag: Hash32 | None = None) -> None:
        """Machine `number` signs in, and offers what `tag` names from now on."""
        wallet, pool = self.wallets[number], self.pool
        tag = self.tags[number] = tag or self.tags.get(number, ZERO_HASH)
        pool.admin.enrol(wallet)
        pool.chain.rpc.call("anvil_setBalance", wallet, hex(BALANCE))
        offer = Capabilities(name=f"machine-{number}", version="1", slots=2, cpus=1, memory_bytes=2**30, tag=tag)
        pool.store.workers.enrol(wallet, offer, pool.now)

    def task(self, deal: Matched) -> TaskRecord:
        """The first task of a deal, as it is stored."""
        found = self.pool.task(deal)
        assert found is not None
        return found

    def fund(self, wallet: Wallet, amount: NRlc) -> None:
        """Deposit for a wallet."""
        self.send(contracts.deposits_of(self.pool.chain.rpc, self.pool.chain.at, {wallet: amount}))

    def send(self, requests: Sequence[TxRequest]) -> None:
        """What the hub's owner does, in a block of its own, which has the time of anvil's clock."""
        self.pool.chain.sender(0).send(requests)
        self.pool.now = max(self.pool.now, self.head_time())

    def head_time(self) -> float:
        """Of the newest block, Unix seconds."""
        return _head_time(self.pool)

    def environment(self) -> dict[str, str]:
        """The settings of the operator's shell."""
        now = self.services.settings
        wanted = now.model_dump(include=now.model_fields_set)
        return {
            f"SLUICE_{name.upper()}": getattr(value, "get_secret_value", lambda value=value: str(value))()
            for name, value in wanted.items()
        }

    @contextmanager
    def restarted_with(self, **changed: object) -> Iterator[None]:
        """The scheduler's processes have these settings in the block."""
        services, lane = self.services, self.pool.scheduler.lane
        settings = services.settings.model_copy(update=changed)
        self.operations.application.state.services = replace(services, settings=settings)
        scheduler = self.pool.scheduler
        scheduler.lane = poco_lane(settings, scheduler.hub.rpc, scheduler.key, scheduler.lane_store)
        try:
            yield
        finally:
            self.operations.application.state.services, scheduler.lane = services, lane

    @contextmanager
    def nobody_reads(self, queue: str) -> Iterator[None]:
        """Messages stay in the queue in the block."""
        self.readers.basic_cancel(queue)
        yield
        self.readers.basic_consume(queue, consumer_tag=queue, no_ack=True, callback=_read)


@contextmanager
def open_operated_pool(
    state: PocoState, stack: Stack, database: str, home: Path, *, machines: int = MACHINES, tasks: int = TASKS
) -> Iterator[OperatedPool]:
    """A pool of its own, as long as the block lasts."""
    port = ports.free_port()
    more = {"operations_port": port, "finality_blocks": FINALITY}
    with open_outage_pool(state, stack, database, home, **more) as pool, _readers(pool) as readers:
        pool.admin.prepare()
        pool.categories[CATEGORY] = XS
        wallets = [Key(secrets.token_bytes(32)).wallet for _ in range(machines)]
        chain = pool.chain
        chain.sender(0).send(contracts.deposits_of(chain.rpc, chain.at, dict.fromkeys(wallets, STAKE)))
        pool.now = _head_time(pool) + 1
        with _serving(pool, port) as operations:
            operated = OperatedPool(pool, operations, readers, wallets)
            for number in range(machines):
                operated.sign_in(number)
            operated.bulk = pool.buy(CATEGORY, volume=tasks)
            operated.step(3)
            for wallet in wallets:
                for task in pool.store.lists.of_worker(wallet, tasks):
                    pool.store.tasks.record_report(task.task_id, wallet, Step.STARTED, pool.now, None, None)
            operated.step(2)
            yield operated


def _head_time(pool: OutagePool) -> float:
    return float(int(pool.chain.rpc.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16))


def _read(_: object) -> None:
    """As a process that reads a message and loses it."""


@contextmanager
def _readers(pool: OutagePool) -> Iterator[Any]:
    """Consumers of the scheduler's queues, in the place of its processes."""
    core = core_app(pool.settings, pool.scheduler.key.wallet)
    with core.connection_for_read() as connection:
        channel: Any = connection.channel()
        for queue in core.conf.task_queues:
            if queue.name != topology.DEAD_QUEUE:
                queue(channel).declare()
                channel.basic_consume(queue.name, consumer_tag=queue.name, no_ack=True, callback=_read)
        yield channel


@contextmanager
def _serving(pool: OutagePool, port: int) -> Iterator[OperationsPort]:
    """The operations port, whose clocks are the pool's, and which gives no answer twice."""
    opened = Services.open(pool.settings)
    probes: Any = opened.monitor._probes
    probes.clock, probes.monotonic = pool.clock, lambda: pool.now
    monitor = Monitor(probes, lambda: None, pool._hold, clock=lambda: pool.now)
    application = create_operations_app(
        replace(opened, monitor=monitor, clock=pool.clock, slow_answers=RecentAnswers(0.0))
    )
    operations = OperationsPort(pool.settings, application, port)
    operations.start()
    try:
        yield operations
    finally:
        operations.stop()
        monitor.close()
        opened.close()
