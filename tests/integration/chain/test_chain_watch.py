"""The watcher on a real node: every way a chain has of changing its mind."""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chain.contracts import calls
from chain.contracts.hub import Hub
from chain.rpc.client import Request, Rpc
from chain.testing import MemoryWatchStore
from chain.watch.watcher import Caught, Watcher
from ops.market import contracts, orders
from ops.market.match import Matched, match
from ops.market.orders import Offer
from ops.poco.sender import TxRequest
from ops.poco.state import PocoState
from ops.stack import ports
from ops.stack.servers import anvil
from protocol.errors import RpcUnavailable, WrongChain
from protocol.poco import events
from protocol.types import BlockNumber, Contract, Hash32
from tests.integration.conftest import Chain
from tests.waiting import freeze

OWNER, REQUESTER = 1, 2
LOOKBACK = 16


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


@dataclass(slots=True)
class Scene:
    """A pool with an app for sale, and a watcher on it."""

    chain: Chain
    pool: Contract
    offer: Offer
    store: MemoryWatchStore = field(default_factory=MemoryWatchStore)
    watching: Watcher = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """As a new process would: the store is what remains."""
        self.watching = self.watcher(self.chain.rpc)

    def watcher(self, rpc: Any) -> Watcher:
        return Watcher(rpc, Hub(rpc, self.chain.at.hub), self.pool, self.store, lookback=LOOKBACK)

    def catch_up(self) -> list[Caught]:
        return list(self.watching.catch_up(self.chain.hub.head()))

    def buy(self, volume: int = 1) -> Matched:
        """A deal, mined."""
        requester, market = self.chain.sender(REQUESTER), self.chain.market
        request = orders.request(market, requester.key, self.offer, volume=volume)
        return match(requester, market, [(self.offer, request)])[0]

    def initialize(self, deal: Matched) -> str:
        """All tasks of a deal, mined; the transaction's hash."""
        data = calls.initialize_array([(deal.deal_id, index) for index in range(len(deal.tasks))])
        call = TxRequest(self.chain.at.hub, data, calls.gas_limit("initializeArray", data))
        return self.chain.sender(OWNER).run([call])[0].tx_hash


@pytest.fixture
def scene(chain: Chain) -> Scene:
    checksum = Hash32("0x" + "11" * 32)
    owner = chain.sender(OWNER)
    app, pool = contracts.create(
        owner, chain.at, [contracts.NewApp("hello", "hello:1", checksum), contracts.NewWorkerpool("watched pool")]
    )
    offer = Offer(
        orders.offer_app(chain.market, owner.key, app),
        orders.offer_work(chain.market, owner.key, pool, category=0),
    )
    return Scene(chain, pool, offer)


def test_a_deal_and_its_tasks_are_followed(scene: Scene) -> None:
    deal = scene.buy(volume=3)
    scene.initialize(deal)

    caught = scene.catch_up()

    assert [deal_id for one in caught for deal_id in one.deals] == [deal.deal_id]
    assert [task for one in caught for task in one.tasks] == list(deal.tasks)
    assert scene.store.events == [
        events.SchedulerNotice(scene.pool, deal.deal_id),
        *(events.TaskInitialize(task, scene.pool) for task in deal.tasks),
    ]


@dataclass(frozen=True, slots=True)
class BlindNode:
    """The real node, but its log index is empty: what some public nodes show at the head."""

    node: Rpc
    name: str = "blind"

    def call(self, method: str, *params: object) -> Any:
        return [] if method == "eth_getLogs" else self.node.call(method, *params)

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        answers = self.node.batch(requests)
        return [
            [] if method == "eth_getLogs" else answer for (method, _), answer in zip(requests, answers, strict=True)
        ]


def test_a_node_that_hides_logs_is_caught_by_the_blocks_filter(scene: Scene) -> None:
    deal = scene.buy()
    watching = scene.watcher(BlindNode(scene.chain.rpc))

    caught = list(watching.catch_up(scene.chain.hub.head()))

    assert [deal_id for one in caught for deal_id in one.deals] == [deal.deal_id]


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_a_reorg_that_drops_transactions_takes_their_events_back(scene: Scene, depth: int) -> None:
    deal = scene.buy()
    scene.chain.mine(depth)
    scene.initialize(deal)
    scene.catch_up()

    scene.chain.rpc.call("anvil_reorg", scene.chain.hub.head() - _initialized_at(scene) + depth, [])
    scene.chain.mine(1)
    caught = scene.catch_up()

    assert deal.tasks[0] in caught[0].orphaned
    assert events.TaskInitialize(deal.tasks[0], scene.pool) not in scene.store.events


def test_a_reorg_that_brings_the_transactions_back_counts_them_once(scene: Scene) -> None:
    deal = scene.buy()
    transaction = scene.initialize(deal)
    scene.catch_up()
    raw = scene.chain.rpc.call("eth_getRawTransactionByHash", transaction)
    depth = scene.chain.hub.head() - _initialized_at(scene) + 1

    scene.chain.rpc.call("anvil_reorg", depth, [[raw, 0]])
    scene.chain.mine(1)
    scene.catch_up()

    assert scene.store.events.count(events.TaskInitialize(deal.tasks[0], scene.pool)) == 1
    assert len(scene.store.orphaned) == 1


def test_a_rollback_without_any_notice_is_noticed(scene: Scene) -> None:
    deal = scene.buy()
    scene.chain.mine(2)
    scene.initialize(deal)
    scene.catch_up()

    scene.chain.rpc.call("anvil_rollback", scene.chain.hub.head() - _initialized_at(scene) + 1)
    scene.chain.mine(1)
    caught = scene.catch_up()

    assert caught[0].orphaned == deal.tasks
    assert scene.store.events == [events.SchedulerNotice(scene.pool, deal.deal_id)]


def test_a_frozen_node_is_given_up_and_nothing_is_lost(scene: Scene) -> None:
    scene.catch_up()
    deal = scene.buy()
    head = scene.chain.hub.head()
    freeze(scene.chain.node.pid)
    try:
        with Rpc(scene.chain.node.rpc_url, timeout=0.5) as short_timeout_rpc, pytest.raises(RpcUnavailable):
            list(scene.watcher(short_timeout_rpc).catch_up(head))
    finally:
        os.kill(scene.chain.node.pid, signal.SIGCONT)
    caught = scene.catch_up()

    assert [deal_id for one in caught for deal_id in one.deals] == [deal.deal_id]


def test_a_node_that_restarts_with_its_state_is_followed_on(scene: Scene, tmp_path: Path) -> None:
    deal = scene.buy()
    scene.catch_up()
    saved = tmp_path / "state.json"
    port = scene.chain.node.port
    saved.write_bytes(_unpacked(scene.chain.rpc.call("anvil_dumpState")))
    scene.chain.node.stop()

    again = anvil.start(tmp_path / "again", port, block_time=None, load=saved)
    try:
        scene.restart()
        caught = scene.catch_up()
    finally:
        again.stop()

    assert deal.deal_id in [deal_id for one in caught for deal_id in one.deals]


def test_a_node_that_comes_back_as_another_chain_is_refused(
    scene: Scene, poco_state: PocoState, tmp_path: Path
) -> None:
    scene.buy()
    scene.catch_up()
    scene.chain.node.stop()

    other = anvil.start(tmp_path / "other", scene.chain.node.port, block_time=None, chain_id=31337)
    try:
        rpc = scene.chain.rpc
        rpc.call("anvil_mine", hex(1000))
        with pytest.raises(WrongChain):
            scene.catch_up()
    finally:
        other.stop()


def test_a_node_that_lags_a_little_is_waited_for_and_one_far_behind_refused(scene: Scene, tmp_path: Path) -> None:
    deal = scene.buy()
    forked_at = scene.chain.hub.head()
    scene.chain.mine(2)
    scene.catch_up()
    lagging = anvil.start(
        tmp_path / "lagging",
        ports.free_port(),
        block_time=3600,
        extra=("--fork-url", scene.chain.node.rpc_url, "--fork-block-number", str(forked_at)),
    )
    try:
        with Rpc(lagging.rpc_url) as rpc:
            behind = scene.watcher(rpc)
            list(behind.catch_up(Hub(rpc, scene.chain.at.hub).head()))
            assert list(behind.catch_up(Hub(rpc, scene.chain.at.hub).head())) == []
            assert scene.store.events == [events.SchedulerNotice(scene.pool, deal.deal_id)]

            scene.chain.rpc.call("anvil_mine", hex(LOOKBACK + 10))
            scene.catch_up()
            with pytest.raises(RpcUnavailable, match="far below"):
                list(behind.catch_up(BlockNumber(forked_at)))
    finally:
        lagging.stop()


def test_a_long_absence_is_caught_up_with(scene: Scene) -> None:
    deal = scene.buy()
    with Rpc(scene.chain.node.rpc_url, timeout=60.0) as long_timeout_rpc:
        long_timeout_rpc.call("anvil_mine", hex(1000))
    scene.initialize(deal)

    caught = scene.catch_up()

    assert [task for one in caught for task in one.tasks] == list(deal.tasks)
    # In two or three ranges and one step near the head, not block by block.
    assert len(caught) < 6


def _initialized_at(scene: Scene) -> int:
    return max(seen.block_number for seen in scene.store.present.values())


def _unpacked(dump: str) -> bytes:
    return gzip.decompress(bytes.fromhex(dump[2:]))
