"""Pools for tests: one for all tests that leave it as they found it, and orders to buy from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from bench.rig.bench_pool import BenchPool, open_bench_pool
from config.settings import read_settings
from ops.market import orders
from ops.market.match import Matched, match
from ops.market.orders import Offer
from ops.pool import servers
from ops.pool.local import WorkerMachine
from ops.pool.site import Servers
from pipeline.store.client import Store
from protocol.poco.view import ChainView
from protocol.types import TaskId, Wallet
from tests.browser import open_browser
from tests.integration.conftest import given
from tests.integration.pool.unservable import NotText, Sender, empty_registry, purchases
from tests.waiting import ample, wait_until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

#: Seconds between blocks. Each costs every process that follows the chain some milliseconds, and most of these tests
#: wait for something else: at half a second this pool takes a tenth of a core for nothing.
BLOCK_TIME = 1.0
#: Seconds for a deal to end, on a machine that is busy with other things too.
WAIT_SECONDS = 60.0
#: Seconds for a page in a browser to be drawn with what just happened.
PAGE_SECONDS = 30.0
#: Machines of the shared pool: trust 3 needs two of newcomers, and a third that outvotes a liar.
HONEST = 3


@pytest.fixture(scope="session")
def shared_servers() -> Servers:
    """MongoDB, RabbitMQ, Docker and IPFS of the local stack, started if they are not up. Machines use TLS."""
    return servers.bring_up(tls=True)


# Ends with this folder: a pool that waits costs each block, and half the suite is still to come.
@pytest.fixture(scope="package")
def shared_pool(shared_servers: Servers) -> Iterator[BenchPool]:
    """A pool of HONEST machines with two slots each, shared; two more wallets have a stake and no machine."""
    env = {"SLUICE_PING_SECONDS": "2", "SLUICE_API_PROCESSES": "2"}
    with open_bench_pool(
        block_time=BLOCK_TIME, workers=HONEST, slots=2, spares=2, env=env, servers=shared_servers
    ) as bench_pool:
        bench_pool.timeout = ample(WAIT_SECONDS)
        yield bench_pool


@pytest.fixture(scope="package")
def browser() -> Iterator[Chrome]:
    with open_browser() as chrome:
        chrome.set_page_load_timeout(ample(PAGE_SECONDS))
        chrome.set_script_timeout(ample(PAGE_SECONDS))
        yield chrome


@pytest.fixture(scope="package")
def voted(shared_pool: BenchPool) -> TaskId:
    """A task of trust 3 that is over."""
    deal = shared_pool.buy(trust=3, volume=1)
    shared_pool.wait([deal])
    return deal.tasks[0]


@pytest.fixture(scope="package")
def unservable_deals(shared_pool: BenchPool) -> Iterator[dict[str, Matched]]:
    """Deals that cannot be served, by what is wrong with them. The longest takes 10 s: others may use that time."""
    with empty_registry() as registry:
        wanted = purchases(shared_pool, registry)
        yield dict(zip(wanted, buy(shared_pool, list(wanted.values())), strict=True))


def buy(bench_pool: BenchPool, wanted: Sequence[tuple[Offer, int, str]]) -> list[Matched]:
    """Match (offer, trust, args) each as one deal of one task, all in one block."""
    on_chain = bench_pool.pool.on_chain
    deals = []
    for offer, trust, args in wanted:
        params = NotText(json.dumps({"iexec_args": args, "iexec_result_storage_provider": "ipfs"}))
        deals.append((offer, orders.request(on_chain.market, on_chain.requester, offer, trust=trust, params=params)))
    return match(Sender(bench_pool.buyer.key, bench_pool.rpc, bench_pool.buyer.chain_id), on_chain.market, deals)


def view(bench_pool: BenchPool, task: TaskId) -> ChainView:
    """The task as the contract has it now."""
    (found,) = bench_pool.hub.tasks([task])
    return found


def ended(bench_pool: BenchPool, task: TaskId) -> Mapping[str, Any]:
    """The API's answer about a task, once the scheduler has closed it; the chain may be ahead of its database."""

    def look() -> dict[str, Any]:
        answer = httpx.get(f"{bench_pool.pool.api_url}/tasks/{task}", timeout=ample(5.0)).raise_for_status().json()
        return answer if answer["currentStatus"] in {"COMPLETED", "FAILED"} else {}

    return wait_until(look, 20, what=f"the end of task {task} in the API")


def machine_of(bench_pool: BenchPool, number: int, *, module: tuple[str, ...], slots: int = 1) -> WorkerMachine:
    """Machine `number` (from 1) of the pool, running `module`."""
    return WorkerMachine(f"worker-{number}", bench_pool.pool.on_chain.workers[number - 1], slots, module)


@contextmanager
def banned(shared_pool: BenchPool, wallets: Iterable[Wallet]) -> Iterator[None]:
    """These machines get no work in the block."""
    set_banned(shared_pool, wallets, banned=True)
    try:
        yield
    finally:
        set_banned(shared_pool, wallets, banned=False)


def set_banned(shared_pool: BenchPool, wallets: Iterable[Wallet], *, banned: bool) -> None:
    workers = Store.open(read_settings(**given(shared_pool.pool.env))).workers
    for wallet in wallets:
        workers.set_banned(wallet, banned=banned)
