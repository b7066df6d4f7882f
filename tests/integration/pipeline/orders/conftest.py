"""A pool that offers work on a market: real PoCo, MongoDB and RabbitMQ, and a stand-in of iExec's market API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chain.rpc.client import Rpc
from config.celery_apps import core_app
from ops.market import orders
from ops.market.match import Matched, match
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.state import CHAIN_ID
from pipeline.broker.notify import Notifier
from pipeline.domain.orders.records import OrderRecord, OrderStage
from pipeline.domain.records import ChainFacts
from pipeline.flow.orders.keep import keep_orders
from pipeline.scheduler import Scheduler
from protocol.poco.orders import WorkerpoolOrder
from protocol.types import Wei
from tests.faulty.market import Market, market_api
from tests.integration.pipeline.conftest import OWNER, PRICE, REQUESTER, Pool
from tests.integration.pipeline.simulated_worker import SimulatedWorker
from tests.waiting import ample, until

POLICY = """
market = "{url}"
steady_seconds = 1
renew_hours = {hours}
close_on_chain = {close}

[[offer]]
category = {category}
price = "{price} nRLC"
trust = 2
"""


@dataclass
class Shop:
    """A pool whose policy offers work on a market. `scheduler`: this process's own, at a clock that tests move."""

    pool: Pool
    market: Market
    file: Path
    ahead: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler.open(self.pool.settings)
        real = self.scheduler.clock
        self.scheduler.clock = lambda: real() + self.ahead
        self.notifier = Notifier(core_app(self.pool.settings, self.scheduler.key.wallet), self.scheduler.key.wallet)

    def write(self, price: int = PRICE, hours: float = 24.0, *, close: bool = True) -> None:
        wanted = {"price": price, "hours": hours, "close": str(close).lower()}
        self.file.write_text(POLICY.format(url=self.market.url, category=TEST_10_CATEGORY, **wanted))

    def keep(self, seconds: float = 0.0) -> bool:
        """One run, `seconds` after the last one. Always true."""
        self.ahead += seconds
        keep_orders(self.scheduler)
        return True

    def keep_until(self, what: str, look: Callable[[], object]) -> None:
        """Runs until `look` is true: a block may come while a run reads, or a close wait."""
        until(what, lambda: self.keep() and look())

    def orders(self) -> list[OrderRecord]:
        """All of them, the oldest first."""
        return self.pool.store.orders.newest(100)[::-1]

    def machine(self, number: int, slots: int = 2) -> SimulatedWorker:
        """A machine that could be given a task now."""
        machine = self.pool.enrol(number, slots=slots)
        until("the machine to consume", lambda: self._consumers(machine) > 0)
        stake = self.pool.chain.hub.account(machine.key.wallet).stake
        facts = ChainFacts(2, stake, Wei(10**18), funded=True)
        self.pool.store.workers.store_facts([(machine.key.wallet, facts)], self.scheduler.clock())
        return machine

    def _consumers(self, machine: SimulatedWorker) -> int:
        """Consumers of the machine's queue."""
        with self.scheduler.pool_link.producer() as producer:
            channel: Any = producer.channel
            return int(channel.queue_declare(f"w.{machine.key.wallet}", passive=True).consumer_count)

    def buy(self, order: WorkerpoolOrder, volume: int) -> Matched:
        """A requester buys from an order of the market."""
        chain = self.pool.chain
        offer = orders.Offer(orders.offer_app(chain.market, chain.sender(OWNER).key, self.pool.app), order)
        request = orders.request(chain.market, chain.sender(REQUESTER).key, offer, volume=volume, trust=1)
        return match(chain.sender(REQUESTER), chain.market, [(offer, request)])[0]

    def await_followed(self) -> None:
        """The watcher has stored the block that is the newest now."""
        head = self.pool.chain.hub.head()

        def followed() -> bool:
            cursor = self.pool.store.chain.cursor()
            return cursor is not None and cursor.number >= head

        until("the watcher to follow", followed)


@pytest.fixture
def make_shop(make_pool: Callable[..., Pool], chain: Any, tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    with Rpc(chain.node.rpc_url, timeout=ample(3.0)) as rpc, market_api(rpc, chain.at.hub, CHAIN_ID) as market:
        shops = []

        def make(*processes: str) -> Shop:
            file = tmp_path / "orders.toml"
            shop = Shop(make_pool(orders_file=file, finality_blocks=2, worker_lost_seconds=86400.0), market, file)
            shop.write()
            shops.append(shop)
            for name in processes:
                shop.pool.start(name)
            log = shop.pool.home / "watch.log"
            until("events to be followed", lambda: log.exists() and "presence_followed" in log.read_text())
            shop.await_followed()
            return shop

        yield make
        for shop in shops:
            shop.notifier.close()
            shop.scheduler.close()


def closed(shop: Shop) -> bool:
    return not any(each.open_to_buyers for each in shop.orders())


def ended(shop: Shop) -> bool:
    return all(each.stage is OrderStage.ENDED for each in shop.orders())
