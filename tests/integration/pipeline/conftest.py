"""A pool with a real chain, MongoDB and RabbitMQ, its scheduler's processes, and worker machines driven by hand."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from chain.contracts import calls
from chain.contracts.hub import Hub
from config import topology
from config.settings import Settings, read_settings
from ops.market import contracts, orders
from ops.market.match import Matched, match
from ops.poco.deploy import CATEGORIES, TEST_10_CATEGORY
from ops.poco.sender import TxRequest
from ops.stack.stack import Stack
from pipeline.broker.admin import BrokerAdmin
from pipeline.domain.records import TaskRecord
from pipeline.store.client import Store
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import Contract, Hash32, NRlc, TaskId
from protocol.wire import Assignment, Capabilities
from tests.integration import forged
from tests.integration.conftest import Chain, given
from tests.integration.pipeline import processes
from tests.integration.pipeline.sharded.shards import at_each_server
from tests.integration.pipeline.simulated_worker import SimulatedWorker
from tests.waiting import ample, freeze, until

OWNER, REQUESTER, WORKERS = 1, 2, (3, 4, 5, 6)
DEPOSIT, PRICE = NRlc(10**9), NRlc(100)
TRUTH, LIE = Hash32("0x" + "ab" * 32), Hash32("0x" + "cd" * 32)
CHECKSUM = Hash32("0x" + "11" * 32)
#: Categories for what must time out; their ids follow those of the saved chain. Contributions last seven times, reveals
#: twice as long as a task may compute, and a slow machine must get the rest of the task done within that time.
#: Reveals for 16 s:
SHORT_CATEGORY, SHORT_SECONDS = len(CATEGORIES), 8
#: Reveals for 40 s, and after them still 100 s in which others can contribute:
AGAIN_CATEGORY, AGAIN_SECONDS = len(CATEGORIES) + 1, 20
NO_TAG = "0x" + "0" * 64
#: Seconds for a process to end cleanly.
STOP_SECONDS = 20.0


@dataclass
class Pool:
    """A pool under test."""

    chain: Chain
    settings: Settings
    app: Contract
    home: Path
    processes: dict[str, BaseProcess] = field(default_factory=dict)
    machines: list[SimulatedWorker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin = BrokerAdmin.from_settings(self.settings)

    @property
    def store(self) -> Store:
        return Store.open(self.settings)

    # -- the scheduler's processes ---------------------------------------------------------------------------------

    def start(self, name: str, host: str | None = None) -> None:
        """Start one of: watch, pipeline, lane, beat; on `host`, if there are several."""
        lane, key = topology.lane_queue_name(self.chain.sender(OWNER).wallet), _on(name, host)
        environment = self.environment | ({"SLUICE_HOST_NAME": host} if host else {})
        self.processes[key] = processes.start(name, environment, self.home / f"{key}.log", lane)

    def kill(self, name: str, host: str | None = None) -> None:
        """End one of them and its children."""
        forged.kill(self.processes.pop(_on(name, host)))

    def stop(self, name: str, host: str | None = None) -> None:
        """End one of them as a service manager does: it finishes what it has begun."""
        process = self.processes.pop(_on(name, host))
        process.terminate()
        process.join(ample(STOP_SECONDS))
        stopped = not process.is_alive()
        forged.kill(process)
        assert stopped, f"{name} does not end"

    @contextmanager
    def frozen(self, names: Sequence[str], host: str) -> Iterator[None]:
        """These processes of the host stand still in the block, with their children."""
        groups = [self.processes[_on(name, host)].pid or 0 for name in names]
        for group in groups:
            os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            for group in groups:
                os.killpg(group, signal.SIGCONT)

    @property
    def environment(self) -> dict[str, str]:
        wanted = self.settings.model_dump(include=self.settings.model_fields_set)
        return {
            f"SLUICE_{name.upper()}": getattr(value, "get_secret_value", lambda value=value: str(value))()
            for name, value in wanted.items()
        }

    # -- worker machines and requests ------------------------------------------------------------------------------

    def enrol(
        self, number: int, digest: Hash32 = TRUTH, *, slots: int = 1, deaf: set[str] | None = None
    ) -> SimulatedWorker:
        """A machine with its queues, known to the scheduler, at work."""
        key = self.chain.sender(WORKERS[number]).key
        self.admin.enrol(key.wallet)
        offer = Capabilities(name=f"hand-{number}", version="1", slots=slots, cpus=1, memory_bytes=2**30, tag=NO_TAG)
        self.store.workers.enrol(key.wallet, offer, time.time())

        def answer(_: Assignment) -> Hash32:
            return digest

        machine = SimulatedWorker(key, self.settings, self.chain.sender(OWNER).wallet, self.home, answer, deaf or set())
        machine.start()
        self.machines.append(machine)
        return machine

    def buy(self, *, trust: int, volume: int = 1, category: int = TEST_10_CATEGORY) -> Matched:
        market, owner = self.chain.market, self.chain.sender(OWNER)
        requester = self.chain.sender(REQUESTER)
        workerpool = Contract(str(self.settings.workerpool))
        offer = orders.Offer(
            orders.offer_app(market, owner.key, self.app),
            orders.offer_work(market, owner.key, workerpool, category=category, price=PRICE),
        )
        request = orders.request(market, requester.key, offer, trust=trust, volume=volume)
        return match(requester, market, [(offer, request)])[0]

    @contextmanager
    def chain_frozen(self, *, seconds: float) -> Iterator[None]:
        """The node answers no request inside the block, and for `seconds` in all."""
        pid, end = self.chain.node.pid, time.monotonic() + seconds
        freeze(pid)
        try:
            yield
            threading.Event().wait(max(0.0, end - time.monotonic()))
        finally:
            os.kill(pid, signal.SIGCONT)

    # -- looking ---------------------------------------------------------------------------------------------------

    def views(self, deal: Matched) -> list[ChainView]:
        return Hub(self.chain.rpc, self.chain.at.hub).tasks(deal.tasks)

    def task(self, task_id: TaskId) -> TaskRecord:
        record = self.store.tasks.get_task(task_id)
        assert record is not None
        return record

    def await_status(self, deal: Matched, status: TaskStatus, seconds: float = 30.0) -> None:
        until(
            f"{deal.tasks} are {status.name}",
            lambda: all(view.status is status for view in self.views(deal)),
            seconds,
        )

    def await_closed(self, deal: Matched, seconds: float = 20.0) -> list[TaskRecord]:
        """The records once all of them are ended in the store too."""

        def closed() -> list[TaskRecord]:
            records = self.store.tasks.of_deal(deal.deal_id)
            return records if len(records) == len(deal.tasks) and not any(item.open for item in records) else []

        return until(f"{deal.deal_id} is over in the store", closed, seconds)

    def locked(self) -> list[NRlc]:
        """Stakes still locked, of pool owner and workers."""
        wallets = [self.chain.sender(number).wallet for number in (OWNER, *WORKERS)]
        return [account.locked for account in self.chain.hub.accounts(wallets)]


def _on(name: str, host: str | None) -> str:
    return f"{name}@{host}" if host else name


@pytest.fixture
def make_pool(chain: Chain, pool_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    """Makes the pool; the test starts its processes. Arguments: settings of its own."""
    pools: list[Pool] = []

    def make(**overrides: object) -> Pool:
        accounts = (OWNER, REQUESTER, *WORKERS)
        lengths = (SHORT_SECONDS, AGAIN_SECONDS)
        categories = [calls.create_category(f"TEST-{seconds}", "", seconds) for seconds in lengths]
        chain.sender(0).send([TxRequest(chain.at.hub, category, 500_000) for category in categories])
        app, workerpool = contracts.open_market(
            chain.sender(OWNER),
            chain.sender(0),
            chain.at,
            [contracts.NewApp("hello", "docker.io/library/hello:1", CHECKSUM), contracts.NewWorkerpool("test pool")],
            {chain.sender(index).wallet: DEPOSIT for index in accounts},
        )
        key_file = tmp_path / "key"
        key_file.touch(mode=0o600)
        key_file.write_text(_secret(OWNER))
        wanted = {"workerpool": workerpool, "key_file": key_file, "sweep_seconds": 1.0, **overrides}
        pools.append(Pool(chain, pool_settings(**wanted), app, tmp_path))
        return pools[-1]

    with ExitStack() as looks:
        yield lambda **overrides: looked_at(looks, make(**overrides))
        for pool in pools:
            for machine in pool.machines:
                machine.stop()
            for name in list(pool.processes):
                pool.kill(name)
            pool.admin.close()


def looked_at(looks: ExitStack, pool: Pool) -> Pool:
    """The pool, whose queries are looked at until `looks` ends: its processes find the indexes that they need."""
    pool.store.ensure_indexes()
    looks.enter_context(by_index(pool.store))
    return pool


@pytest.fixture
def pool(make_pool: Callable[[], Pool]) -> Pool:
    """A pool whose scheduler runs."""
    made = make_pool()
    for name in ("watch", "pipeline", "lane", "beat"):
        made.start(name)
    return made


def _secret(index: int) -> str:
    """Private key of a development account, as hex: everybody knows these keys."""
    from eth_account import Account

    from ops.stack.servers.anvil import MNEMONIC

    Account.enable_unaudited_hdwallet_features()
    return str(Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}").key.to_0x_hex())


@pytest.fixture
def store(stack: Stack, emptied_database: str) -> Iterator[Store]:
    """A store of its own, empty."""
    settings = read_settings(**(given(stack.settings) | {"mongodb_database": emptied_database}))
    opened = Store.open(settings)
    opened.ensure_indexes()
    with by_index(opened):
        yield opened


@contextmanager
def by_index(store: Store) -> Iterator[None]:
    """Fail if a query inside the block read a whole collection: it would get slower with all that is over.

    MongoDB's own profiler tells, whoever asked: the store itself, or a process of the scheduler.
    """
    with at_each_server(store._db) as servers:
        for db in servers.values():
            db.command("profile", 1, filter={"planSummary": {"$regex": "COLLSCAN"}})
        yield
        scans = []
        for db in servers.values():
            db.command("profile", 0)
            scans += [(scan["ns"], scan["command"]) for scan in db["system.profile"].find()]
            db.drop_collection("system.profile")
    assert not [scan for scan in scans if not _may_scan(scan[1])]


def _may_scan(command: Mapping[str, Any]) -> bool:
    """A test that empties a collection; what a start looks for once in all that an older release left; and
    `Workers.nearest`, which takes the first few for an operator who asks why a task waits.
    """
    wanted = command.get("q", command.get("filter"))
    nearest = command.get("find") == "workers" and "limit" in command and "sort" not in command
    return nearest or wanted == {} or "$exists" in str(wanted)
