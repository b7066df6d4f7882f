"""A pool whose servers can be away and whose clocks are the test's, stepped by hand.

The parts are real: chain, MongoDB, RabbitMQ, the health checks, the watcher, the sweep, the lane, a machine's queues.
What the scheduler's processes do at a message happens here in each step; messages themselves are lost, as they may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymongo
import pytest
from kombu import Connection

from beat.watch import LOOKBACK
from chain.contracts import calls
from chain.lane.model.policy import LanePolicy
from chain.watch.watcher import Watcher
from config import topology
from config.settings import Settings, read_settings
from ops.market import contracts, orders
from ops.market.match import Matched, match
from ops.poco.deploy import CATEGORIES
from ops.poco.sender import TxRequest
from ops.poco.state import CHAIN_ID, PocoState
from ops.stack.stack import Stack
from pipeline import probes, tasks
from pipeline.api.monitor import Monitor
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.link import BROKER_ERRORS
from pipeline.domain.records import TaskRecord
from pipeline.flow import sweep
from pipeline.flow.advance_each import advance_each
from pipeline.flow.chain_time import ChainTime
from pipeline.flow.isolate import TRANSIENT_ERRORS
from pipeline.probes import Probes
from pipeline.scheduler import Scheduler
from pipeline.store import hold
from pipeline.store.client import Store
from protocol.poco.view import ChainView
from protocol.types import ZERO_HASH, BlockNumber, Contract, Hash32, NRlc
from protocol.wire import Capabilities
from tests.faulty import Answer
from tests.faulty.http import Handler, beside
from tests.faulty.management import ManagementPort
from tests.faulty.mongodb import MongoPort
from tests.faulty.node import FaultyNode, serving, upstream
from tests.faulty.port import Port
from tests.faulty.port import serving as serving_port
from tests.integration.conftest import Chain, given, standing_still, two_vhosts
from tests.integration.pipeline.conftest import (
    CHECKSUM,
    DEPOSIT,
    NO_TAG,
    OWNER,
    PRICE,
    REQUESTER,
    TRUTH,
    WORKERS,
    _secret,
)
from tests.integration.pipeline.simulated_worker import SimulatedWorker
from tests.waiting import ample

#: Two categories, seconds that a task may compute. Of the first, reveals last 16 s, votes 56 s and the task 80 s; of
#: the second, 92, 322 and 460 s.
SHORT, LONG = 8, 46
#: Seconds of every clock in one step: within what a part may be away without a hold, and while one is away.
STEP_SECONDS, AWAY_SECONDS = 8.0, 40.0
#: Steps until what must come has come.
MOST_STEPS = 40
#: Seconds that a server may take for its answer, and what is waited for a database that is away.
ANSWER_SECONDS, GONE_SECONDS = ample(3.0), 0.5


@dataclass
class IpfsStub:
    """What the health checks ask of kubo; nothing else here asks it. `away`: it answers with errors."""

    away: bool = False


@contextmanager
def _ipfs(stub: IpfsStub) -> Iterator[str]:
    class Answers(Handler):
        def do_POST(self) -> None:  # noqa: N802 - the library's name
            self.send(Answer(500, b"{}") if stub.away else Answer(200, b'{"Version": "0.42.0"}'))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    with beside(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


@dataclass
class OutagePool:
    """`ahead`: seconds that the scheduler's clock is off."""

    chain: Chain
    settings: Settings
    app: Contract
    home: Path
    node: FaultyNode
    mongodb: MongoPort
    #: Its port for messages and that of its management.
    rabbitmq: tuple[Port, ManagementPort]
    ipfs: IpfsStub
    categories: dict[int, int]
    patch: pytest.MonkeyPatch
    now: float
    ahead: float = 0.0
    #: Whether blocks come.
    mining: bool = True
    machines: list[SimulatedWorker] = field(default_factory=list)
    #: Reasons of the hold, step by step; None while the pool took work.
    holds: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler.open(self.settings)
        self.scheduler.clock = self.clock
        rpc, cursor = self.scheduler.hub.rpc, self.scheduler.store.chain.cursor
        self.scheduler.chain_time = ChainTime(rpc, cursor, self.settings.block_time, monotonic=lambda: self.now)
        self.scheduler.ensure_indexes()
        for app in (self.scheduler.core, self.scheduler.pool):
            # Half a minute of tries tells no more than one.
            app.conf.task_publish_retry = False
        self.watcher = Watcher(
            self.scheduler.hub.rpc,
            self.scheduler.hub,
            self.scheduler.workerpool,
            self.scheduler.store.chain,
            LOOKBACK,
            BlockNumber(0),
            LanePolicy.of(self.settings).finality,
        )
        self.probes = Probes.open(self.settings, self.scheduler.key)
        self.probes.clock, self.probes.monotonic = self.clock, lambda: self.now
        self.monitor = Monitor(self.probes, lambda: None, self._hold, clock=lambda: self.now)
        self.admin = BrokerAdmin.from_settings(self.settings)
        self._reader: Connection | None = None

    def close(self) -> None:
        for machine in self.machines:
            machine.rpc.close()
            machine.notifier.close()
        self._disconnect()
        self.monitor.close()
        self.scheduler.close()
        self.admin.close()
        # While its port is there: else it is looked for.
        self.store._db.client.close()

    def _disconnect(self) -> None:
        if self._reader is not None:
            with suppress(*BROKER_ERRORS):
                self._reader.close()

    def clock(self) -> float:
        """The scheduler's."""
        return self.now + self.ahead

    @property
    def store(self) -> Store:
        return self.scheduler.store

    # -- the pool's life -----------------------------------------------------------------------------------------------

    def step(self, seconds: float = STEP_SECONDS) -> None:
        """Some seconds of everybody's life."""
        self.now += seconds
        if self.mining:
            self.mine()
        self._set_timeouts(GONE_SECONDS if self.mongodb.away else ANSWER_SECONDS)
        held = self.monitor.look().hold
        self.holds.append(None if held is None else held.why)
        for part in (self._follow, self._sweep, self._lane, self._lose_messages):
            # As a Celery task that is tried again.
            with suppress(*TRANSIENT_ERRORS, *BROKER_ERRORS), self._in_time():
                part()
        for machine in self.machines:
            with suppress(*TRANSIENT_ERRORS, *BROKER_ERRORS), self._in_time():
                self._work(machine)

    def steps(self, seconds: float, each: float = STEP_SECONDS) -> None:
        """So many seconds, in steps of `each`."""
        end = self.now + seconds
        while self.now < end:
            self.step(each)

    def _in_time(self) -> AbstractContextManager[object]:
        """MongoDB may take its usual time, unless it is away."""
        return pymongo.timeout(GONE_SECONDS) if self.mongodb.away else nullcontext()

    def _set_timeouts(self, seconds: float) -> None:
        """How long the health checks wait for an answer."""
        for module, name in ((probes, "ANSWER_SECONDS"), (probes, "ALL_SECONDS"), (hold, "ANSWER_SECONDS")):
            self.patch.setattr(module, name, seconds)

    def mine(self) -> None:
        """A block of now."""
        self.chain.rpc.call("evm_setNextBlockTimestamp", int(self.now))
        self.chain.mine()

    def _hold(self, why: str | None) -> None:
        with suppress(*TRANSIENT_ERRORS):
            if why is None:
                self.store.hold.release("test")
            else:
                self.store.hold.hold(why, "test")

    def _follow(self) -> None:
        for caught in self.watcher.catch_up(self.scheduler.hub.head()):
            tasks._ingest(self.scheduler, list(caught.deals))
            advance_each(self.scheduler, list(caught.tasks))

    def _sweep(self) -> None:
        sweep.sweep(self.scheduler)

    def _lane(self) -> None:
        tasks._run_lane(self.scheduler)

    def _lose_messages(self) -> None:
        """Nobody reads what the scheduler publishes for itself; while messages wait, what is not urgent waits too."""
        with self.scheduler.notifier._link.producer() as producer:
            channel: Any = producer.channel
            channel.queue_purge(topology.PIPELINE_QUEUE)

    def _work(self, machine: SimulatedWorker) -> None:
        """What a machine does: ping, read its messages, run its lane."""
        machine.store.workers.mark_seen(machine.key.wallet, self.now)
        machine.lane.run()
        if self._reader is None or not self._reader.connected:
            self._disconnect()
            url = f"{self.settings.amqp_url.get_secret_value()}/{self.settings.amqp_pool_vhost}"
            self._reader = Connection(url, connect_timeout=1)
        channel: Any = self._reader.channel()
        try:
            for queue in topology.worker_queues(machine.key.wallet):
                bound = queue(channel)
                while (message := bound.get()) is not None:
                    machine._on_message(message)
        finally:
            with suppress(*BROKER_ERRORS):
                channel.close()

    # -- machines and requesters ---------------------------------------------------------------------------------------

    def enrol(self, number: int, *, deaf: set[str] | None = None, slots: int = 8) -> SimulatedWorker:
        """A machine with its queues."""
        key = self.chain.sender(WORKERS[number]).key
        self.admin.enrol(key.wallet)
        offer = Capabilities(name=f"hand-{number}", version="1", slots=slots, cpus=1, memory_bytes=2**30, tag=NO_TAG)
        self.store.workers.enrol(key.wallet, offer, self.now)
        machine = SimulatedWorker(
            key,
            self.settings,
            self.chain.sender(OWNER).wallet,
            self.home,
            lambda _: TRUTH,
            deaf or set(),
            clock=lambda: self.now,
        )
        self.machines.append(machine)
        return machine

    def buy(
        self,
        category: int,
        *,
        trust: int = 1,
        volume: int = 1,
        tag: Hash32 = ZERO_HASH,
        price: NRlc = PRICE,
        params: str = "",
    ) -> Matched:
        """Tasks of a category of so many seconds, each at `price` nRLC."""
        market, owner, requester = self.chain.market, self.chain.sender(OWNER), self.chain.sender(REQUESTER)
        workerpool, number = Contract(str(self.settings.workerpool)), self.categories[category]
        offer = orders.Offer(
            orders.offer_app(market, owner.key, self.app, tag=tag),
            orders.offer_work(market, owner.key, workerpool, category=number, price=price, tag=tag),
        )
        request = orders.request(market, requester.key, offer, trust=trust, volume=volume, params=params, tag=tag)
        self.now += 1
        self.chain.rpc.call("evm_setNextBlockTimestamp", int(self.now))
        deal = match(requester, market, [(offer, request)])[0]
        self.now += 1
        return deal

    def until(self, what: str, deal: Matched, condition: str) -> None:
        """Step until the deal's task is so on chain."""
        for _ in range(MOST_STEPS):
            if self.view(deal).status.name == condition:
                return
            self.step()
        raise AssertionError(f"{what}: {self.view(deal)}, {self.task(deal)}")

    def view(self, deal: Matched) -> ChainView:
        return self.chain.hub.tasks(deal.tasks)[0]

    def task(self, deal: Matched) -> TaskRecord | None:
        found = self.store.tasks.load_tasks(deal.tasks)
        return found[0] if found else None

    def locked(self) -> list[int]:
        """Stakes still locked, of pool owner and workers."""
        wallets = [self.chain.sender(number).wallet for number in (OWNER, *WORKERS)]
        return [account.locked for account in self.chain.hub.accounts(wallets)]


@contextmanager
def open_outage_pool(state: PocoState, stack: Stack, database: str, home: Path, **more: object) -> Iterator[OutagePool]:
    """A pool of its own, as long as the block lasts. `more`: settings on top."""
    servers = read_settings(**given(stack.settings))
    mongodb, rabbitmq = (urlsplit(url.get_secret_value()) for url in (servers.mongodb_uri, servers.amqp_url))
    management = urlsplit(servers.rabbitmq_api)
    with ExitStack() as kept:
        patch = kept.enter_context(pytest.MonkeyPatch.context())
        chain = kept.enter_context(standing_still(state, home / "anvil"))
        vhosts = kept.enter_context(two_vhosts(stack))
        node = FaultyNode(kept.enter_context(upstream(chain.node.rpc_url)))
        ipfs = IpfsStub()
        database_port = MongoPort(str(mongodb.hostname), mongodb.port or 27017)
        broker = (
            Port(str(rabbitmq.hostname), rabbitmq.port or 5672),
            ManagementPort(str(management.hostname), management.port or 15672),
        )
        for port in (database_port, *broker):
            kept.enter_context(serving_port(port))
        categories = {seconds: len(CATEGORIES) + place for place, seconds in enumerate((SHORT, LONG))}
        made = [calls.create_category(f"TEST-{seconds}", "", seconds) for seconds in categories]
        chain.sender(0).send([TxRequest(chain.at.hub, call, 500_000) for call in made])
        app, workerpool = contracts.open_market(
            chain.sender(OWNER),
            chain.sender(0),
            chain.at,
            [contracts.NewApp("hello", "docker.io/library/hello:1", CHECKSUM), contracts.NewWorkerpool("test pool")],
            {chain.sender(index).wallet: DEPOSIT for index in (OWNER, REQUESTER, *WORKERS)},
        )
        key_file = home / "key"
        key_file.touch(mode=0o600)
        key_file.write_text(_secret(OWNER))
        settings = read_settings(
            **given(stack.settings)
            | {
                "home": home,
                "chain_id": CHAIN_ID,
                "rpc_url": kept.enter_context(serving(node)),
                "ws_url": chain.node.ws_url,
                "rpc_timeout": 2.0,
                "hub": chain.at.hub,
                "workerpool": workerpool,
                "block_time": 1.0,
                "key_file": key_file,
                "sweep_seconds": STEP_SECONDS,
                "mongodb_database": database,
                # Directly: a client that asks the replica set for its members would go round the port.
                "mongodb_uri": f"mongodb://127.0.0.1:{database_port.number}/?directConnection=true"
                "&serverSelectionTimeoutMS=300",
                "amqp_url": f"amqp://{rabbitmq.username}:{rabbitmq.password}@127.0.0.1:{broker[0].number}",
                "rabbitmq_api": f"http://127.0.0.1:{broker[1].number}",
                "amqp_core_vhost": vhosts[0],
                "amqp_pool_vhost": vhosts[1],
                "ipfs_api": kept.enter_context(_ipfs(ipfs)),
            }
            | more
        )
        newest = chain.rpc.call("eth_getBlockByNumber", "latest", False)
        pool = OutagePool(
            chain,
            settings,
            app,
            home,
            node,
            database_port,
            broker,
            ipfs,
            categories,
            patch,
            now=float(int(newest["timestamp"], 16)) + 1,
        )
        kept.callback(pool.close)
        yield pool
