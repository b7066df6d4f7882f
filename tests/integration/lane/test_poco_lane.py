"""The lane on the real PoCo contracts: arrays, what counts as done, waiting, and reverts explained in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain.contracts import calls
from chain.lane.model.intent import IntentState
from chain.lane.phases.snapshot import take_snapshot
from ops.market.match import Matched
from ops.poco.sender import DirectSender, TxRequest
from ops.poco.state import CHAIN_ID
from protocol.types import Nonce
from tests.integration.conftest import Chain
from tests.integration.lane.poco_pool import CATEGORY_SECONDS, OWNER, Pool, ended, mined


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


@pytest.fixture
def pool(chain: Chain, tmp_path: Path) -> Pool:
    return Pool(chain, tmp_path)


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
