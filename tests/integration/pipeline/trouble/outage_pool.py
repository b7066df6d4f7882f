"""A pool whose servers can be away and whose clocks are the test's, stepped by hand.

The parts are real: chain, MongoDB, RabbitMQ, the health checks, the watcher, the sweep, the lane, a machine's queues.
What the scheduler's processes do at a message happens here in each step; messages themselves are lost, as they may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymongo
import pytest
from kombu import Connection

from chain.contracts import calls
from config import topology
from config.connections.ipfs import Ipfs
from config.settings import Settings, read_settings
from ops.market import contracts, orders
from ops.market.match import Matched, match
from ops.poco.deploy import CATEGORIES
from ops.poco.sender import TxRequest
from ops.poco.state import CHAIN_ID, PocoState
from ops.stack.stack import Stack
from pipeline import probes
from pipeline.broker import link
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.link import BROKER_ERRORS
from pipeline.domain.records import TaskRecord
from pipeline.flow.isolate import TRANSIENT_ERRORS
from pipeline.scheduler import Scheduler
from pipeline.store import hold
from pipeline.store.client import Store
from protocol.errors import StorageUnavailable
from protocol.poco.view import ChainView
from protocol.types import ZERO_HASH, Contract, Hash32, NRlc
from protocol.wire import Capabilities
from tests.faulty.broker import BrokerPort
from tests.faulty.ipfs import IpfsStub
from tests.faulty.ipfs import serving as serving_ipfs
from tests.faulty.management import ManagementPort
from tests.faulty.mongodb import MongoPort
from tests.faulty.node import FaultyNode, serving, upstream
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
from tests.integration.pipeline.simulated_worker import LINK, SimulatedWorker
from tests.integration.pipeline.trouble.outage_host import OutageHost
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
class OutagePool:
    """`ahead`: seconds that the scheduler's clock is off."""

    chain: Chain
    settings: Settings
    app: Contract
    home: Path
    node: FaultyNode
    mongodb: MongoPort
    #: Its port for messages and that of its management.
    rabbitmq: tuple[BrokerPort, ManagementPort]
    ipfs: IpfsStub
    categories: dict[int, int]
    patch: pytest.MonkeyPatch
    now: float
    #: Whether blocks come, and seconds between them; None: one a step.
    mining: bool = True
    block_seconds: float | None = None
    machines: list[SimulatedWorker] = field(default_factory=list)
    #: Reasons of the hold, step by step; None while the pool took work.
    holds: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host = OutageHost(self.settings, "test", lambda: self.now)
        #: Beside `host`, while there is one.
        self.other: OutageHost | None = None
        self.admin = BrokerAdmin.from_settings(self.settings)
        self._reader: Connection | None = None
        self._ipfs = Ipfs(self.settings.ipfs_api)

    def close(self) -> None:
        for machine in self.machines:
            machine.rpc.close()
            machine.notifier.close()
        self._disconnect()
        self.host.close()
        self.admin.close()
        self._ipfs.close()
        # While its port is there: else it is looked for.
        self.store._db.client.close()

    def _disconnect(self) -> None:
        if self._reader is not None:
            with suppress(*BROKER_ERRORS):
                self._reader.close()

    def clock(self) -> float:
        """The scheduler's."""
        return self.host.clock()

    @property
    def ahead(self) -> float:
        """Seconds that the scheduler's clock is off."""
        return self.host.ahead

    @ahead.setter
    def ahead(self, seconds: float) -> None:
        self.host.ahead = seconds

    @property
    def scheduler(self) -> Scheduler:
        return self.host.scheduler

    @property
    def store(self) -> Store:
        return self.scheduler.store

    @contextmanager
    def second_host(self, *, ahead: float) -> Iterator[None]:
        """Another scheduler host over the same servers in the block, whose clock is so many seconds off."""
        self.other = OutageHost(self.settings, "other", lambda: self.now, ahead)
        try:
            yield
        finally:
            self.other.hold(None)
            self.other.close()
            self.other = None

    # -- the pool's life -----------------------------------------------------------------------------------------------

    def step(self, seconds: float = STEP_SECONDS) -> None:
        """Some seconds of everybody's life."""
        self.now += seconds
        if self.mining:
            self.mine()
        self._set_timeouts(GONE_SECONDS if self.mongodb.away or self.rabbitmq[0].alarmed else ANSWER_SECONDS)
        held = [host.monitor.look().hold for host in self.hosts]
        self.holds.append(next((hold.why for hold in held if hold is not None), None))
        for part in (part for host in self.hosts for part in host.parts()):
            # As a Celery task that is tried again.
            with suppress(*TRANSIENT_ERRORS, *BROKER_ERRORS), self._in_time():
                part()
        for machine in self.machines:
            with suppress(*TRANSIENT_ERRORS, *BROKER_ERRORS), self._in_time():
                self._work(machine)

    @property
    def hosts(self) -> list[OutageHost]:
        return [self.host] if self.other is None else [self.host, self.other]

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
        self.patch.setattr(link, "ANSWER_SECONDS", seconds)

    def mine(self) -> None:
        """A block of now, or blocks up to now."""
        at = self.now
        if self.block_seconds is not None:
            at = self._head_time() + self.block_seconds
        while at <= self.now:
            self.chain.rpc.call("evm_setNextBlockTimestamp", int(at))
            self.chain.mine()
            at += self.block_seconds or STEP_SECONDS

    def _head_time(self) -> float:
        return int(self.chain.rpc.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def _hold(self, why: str | None) -> None:
        self.host.hold(why)

    def _work(self, machine: SimulatedWorker) -> None:
        """What a machine does: ping, read its messages, run its lane."""
        machine.store.workers.mark_seen(machine.key.wallet, self.now)
        machine.lane.run()
        if machine.jobs and (self.ipfs.full or self.host.refusals.facts() is not None):
            self._bring(machine)
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

    def _bring(self, machine: SimulatedWorker) -> None:
        """A machine brings a result that it has, again and again while the API cannot store it."""
        path = self.home / "result.zip"
        path.write_bytes(LINK.model_dump_json().encode())
        try:
            self._ipfs.add(path, machine.key.wallet)
        except StorageUnavailable as error:
            self.host.refusals.refused(str(error))
        else:
            self.host.refusals.stored()

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
            BrokerPort(str(rabbitmq.hostname), rabbitmq.port or 5672),
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
                "ipfs_api": kept.enter_context(serving_ipfs(ipfs)),
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
