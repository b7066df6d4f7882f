"""The lane on the real PoCo contracts: arrays, what counts as done, waiting, and reverts explained in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chain.contracts import calls
from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.snapshot import take_snapshot
from chain.lane.rules.poco import poco_lane
from chain.lane.run import Lane
from chain.lane.store.sqlite import SqliteStore
from config.settings import read_settings
from ops.market import contracts, orders
from ops.market.contracts import NewApp, NewWorkerpool
from ops.market.match import Matched, match
from ops.market.orders import Offer
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.sender import DirectSender, TxRequest
from ops.poco.state import CHAIN_ID
from protocol.poco.authorization import sign_authorization
from protocol.poco.orders import RequestOrder
from protocol.poco.seal import result_hash, result_seal
from protocol.types import Hash32, Nonce, TaskId
from tests.integration.conftest import Chain

OWNER, REQUESTER, WORKER = 1, 2, 3
DIGEST = Hash32("0x" + "ab" * 32)
#: Of the category: contributions are taken for seven times this many seconds.
CATEGORY_SECONDS = 10
#: Within so many all has happened that will.
MANY_BLOCKS = 50


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


class Pool:
    """A pool, its owner's lane, and a worker's."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        self.chain = chain
        owner, requester = chain.sender(OWNER), chain.sender(REQUESTER)
        wanted: list[NewApp | contracts.NewDataset | NewWorkerpool] = [
            NewApp("app", "app", Hash32("0x" + "11" * 32)),
            NewWorkerpool("pool"),
        ]
        self.app, self.pool = contracts.open_market(owner, requester, chain.at, wanted, {})
        self.folder = folder
        self.owner = self.lane(OWNER)
        self.worker = self.lane(WORKER)

    def lane(self, account: int, **settings: object) -> Lane:
        """The lane of an account, as after a restart; `settings` go on top."""
        key = self.chain.sender(account).key
        store = SqliteStore(self.folder / f"{account}.db")
        chosen = read_settings(chain_id=CHAIN_ID, hub=self.chain.at.hub, **settings)
        return poco_lane(chosen, self.chain.rpc, key, store, LanePolicy(finality=3))

    def buy(self, volume: int) -> Matched:
        return self.match(self.purchase(volume))

    def purchase(self, volume: int) -> tuple[Offer, RequestOrder]:
        """Signed orders; matched twice on different branches of a chain, they make the same deal."""
        market, key = self.chain.market, self.chain.sender(OWNER).key
        offer = Offer(
            orders.offer_app(market, key, self.app),
            orders.offer_work(market, key, self.pool, category=TEST_10_CATEGORY),
        )
        return offer, orders.request(market, self.chain.sender(REQUESTER).key, offer, volume=volume)

    def match(self, purchase: tuple[Offer, RequestOrder]) -> Matched:
        return match(self.chain.sender(REQUESTER), self.chain.market, [purchase])[0]

    def initialize(self, deal: Matched, index: int) -> Intent:
        args = {"deal_id": deal.deal_id, "index": index}
        return Intent.new(CHAIN_ID, self.owner.id.wallet, "initialize", deal.tasks[index], args, float(index))

    def contribute(self, task: TaskId) -> Intent:
        wallet = self.worker.id.wallet
        args = {
            "result_hash": result_hash(task, DIGEST),
            "result_seal": result_seal(wallet, task, DIGEST),
            "authorization": sign_authorization(self.chain.sender(OWNER).key, wallet, task),
        }
        return Intent.new(CHAIN_ID, wallet, "contribute", task, args)

    def drive(self, lane: Lane, *intents: Intent, until: Callable[[IntentState], bool]) -> list[Intent]:
        """Run the lane at every block until all of them are so."""
        for _ in range(MANY_BLOCKS):
            lane.run()
            found = lane.intents([intent.key for intent in intents])
            if all(until(intent.state) for intent in found):
                return found
            self.chain.mine()
        raise AssertionError([(intent.state, intent.reason) for intent in found])


@pytest.fixture
def pool(chain: Chain, tmp_path: Path) -> Pool:
    return Pool(chain, tmp_path)


def ended(state: IntentState) -> bool:
    return state in (IntentState.FINAL, IntentState.DONE, IntentState.FAILED)


def mined(state: IntentState) -> bool:
    return state in (IntentState.MINED, IntentState.FINAL)


def test_a_bag_is_initialized_in_one_transaction(pool: Pool) -> None:
    deal = pool.buy(5)
    before = pool.owner.context.store.highest_nonce(pool.owner.id)
    intents = [pool.initialize(deal, index) for index in range(5)]
    pool.owner.submit(intents)
    found = pool.drive(pool.owner, *intents, until=ended)
    assert {intent.state for intent in found} == {IntentState.FINAL}
    assert before is None
    records = [pool.owner.context.store.holding(pool.owner.id, intent.key) for intent in intents]
    assert len({record.nonce for record in records if record}) == 1


def test_a_task_that_another_wallet_initialized_counts_as_done(pool: Pool) -> None:
    deal = pool.buy(2)
    _initialize_from_another_wallet(pool, deal, 0)
    intents = [pool.initialize(deal, index) for index in range(2)]
    pool.owner.submit(intents)
    states = {intent.subject: intent.state for intent in pool.drive(pool.owner, *intents, until=ended)}
    assert states == {deal.tasks[0]: IntentState.DONE, deal.tasks[1]: IntentState.FINAL}


def test_an_array_that_reverts_because_another_wallet_was_faster_goes_again_without_that_task(pool: Pool) -> None:
    deal = pool.buy(3)
    intents = [pool.initialize(deal, index) for index in range(3)]
    # Nothing is mined while both sides send; the stranger pays more.
    pool.owner.submit(intents)
    pool.owner.run()
    stranger = DirectSender(pool.chain.sender(4).key, pool.chain.rpc, CHAIN_ID)
    data = calls.initialize(deal.deal_id, 1)
    pool.chain.rpc.call("anvil_setBalance", stranger.wallet, hex(10**24))
    stranger.send([TxRequest(pool.chain.at.hub, data, 400_000)])
    record = pool.owner.context.store.record(pool.owner.id, Nonce(_first_nonce(pool)))
    assert record is not None
    pool.chain.rpc.call("anvil_dropTransaction", record.newest.tx_hash)
    pool.chain.rpc.call("evm_mine")
    pool.chain.rpc.call("eth_sendRawTransaction", record.newest.raw)
    states = {intent.subject: intent.state for intent in pool.drive(pool.owner, *intents, until=ended)}
    assert states == {
        deal.tasks[0]: IntentState.FINAL,
        deal.tasks[1]: IntentState.DONE,
        deal.tasks[2]: IntentState.FINAL,
    }


def test_a_contribution_waits_for_its_task_and_is_sent_when_it_is_active(pool: Pool) -> None:
    deal = pool.buy(1)
    vote = pool.contribute(deal.tasks[0])
    pool.worker.submit([vote])
    assert not pool.worker.run().wake_again
    assert pool.worker.intents([vote.key])[0].state is IntentState.QUEUED
    first = pool.initialize(deal, 0)
    pool.owner.submit([first])
    pool.drive(pool.owner, first, until=mined)
    (sent,) = pool.drive(pool.worker, vote, until=mined)
    assert sent.block is not None


def test_a_contribution_after_its_deadline_fails_with_the_seconds_in_words(pool: Pool) -> None:
    deal = pool.buy(1)
    first = pool.initialize(deal, 0)
    pool.owner.submit([first])
    pool.drive(pool.owner, first, until=mined)
    pool.chain.rpc.call("evm_increaseTime", 8 * CATEGORY_SECONDS)
    pool.chain.mine()
    vote = pool.contribute(deal.tasks[0])
    pool.worker.submit([vote])
    (failed,) = pool.drive(pool.worker, vote, until=ended)
    assert failed.state is IntentState.FAILED
    assert failed.reason.startswith("contribution deadline passed ")
    assert pool.worker.context.store.highest_nonce(pool.worker.id) is None


def test_a_revert_is_explained_from_the_block_that_mined_it(pool: Pool) -> None:
    deal = pool.buy(1)
    first = pool.initialize(deal, 0)
    pool.owner.submit([first])
    pool.drive(pool.owner, first, until=mined)
    vote = pool.contribute(deal.tasks[0])
    # Sent in time, mined too late.
    pool.worker.submit([vote])
    pool.worker.run()
    pool.chain.rpc.call("evm_increaseTime", 8 * CATEGORY_SECONDS)
    (failed,) = pool.drive(pool.worker, vote, until=ended)
    assert failed.state is IntentState.FAILED
    assert "contribution deadline passed " in failed.reason
    assert "reverted in block " in failed.reason


def test_a_deal_that_a_reorg_removes_before_it_is_deep_enough_costs_no_transaction(pool: Pool) -> None:
    rpc, lane = pool.chain.rpc, pool.lane(OWNER, spend_depth=3)
    purchase = pool.purchase(2)
    deal = pool.match(purchase)
    first, second = (pool.initialize(deal, index) for index in range(2))
    lane.submit([first, second])
    before = _first_nonce(pool)
    lane.run()
    rpc.call("anvil_mine", "0x1")
    lane.run()
    (verdict,) = lane.context.readiness.check([first], take_snapshot(rpc, lane.id.wallet, None).moment)
    assert "not 3 blocks deep" in verdict.reason
    rpc.call("anvil_reorg", 2, [])
    for _ in range(4):
        rpc.call("anvil_mine", "0x1")
        lane.run()
    assert lane.context.store.highest_nonce(lane.id) is None
    assert _first_nonce(pool) == before
    # The requester's transaction comes back; now it stays.
    again = pool.match(purchase)
    assert again.tasks == deal.tasks
    for _ in range(3):
        assert lane.context.store.highest_nonce(lane.id) is None
        rpc.call("anvil_mine", "0x1")
        lane.run()
    rpc.call("anvil_mine", "0x1")
    lane.run()
    assert {intent.block for intent in lane.intents([first.key, second.key])} == {again.block_number + 4}


def _initialize_from_another_wallet(pool: Pool, deal: Matched, index: int) -> None:
    pool.chain.sender(4).run([TxRequest(pool.chain.at.hub, calls.initialize(deal.deal_id, index), 400_000)])


def _first_nonce(pool: Pool) -> int:
    count = pool.chain.rpc.call("eth_getTransactionCount", pool.owner.id.wallet, "latest")
    return int(count, 16)
