"""SLUICE_STATE=pending on the real contracts: which steps share a block, which never do, what an early one costs."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from chain.lane.model.intent import BEHIND, Intent, IntentState
from chain.lane.phases.snapshot import take_snapshot
from chain.lane.rules.early import LEAST
from chain.lane.rules.readiness import Judgement
from chain.lane.run import Lane
from chain.rpc.answers import Reply
from chain.rpc.client import JsonRpc, Request
from ops.market.match import Matched
from protocol.errors import RpcError
from protocol.types import Nonce, TaskId
from tests.integration.conftest import Chain
from tests.integration.lane.poco_pool import OWNER, WORKER, Pool
from tests.waiting import freeze

#: A second worker: trust 3 needs two newcomers' votes.
SECOND = 5


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


@pytest.fixture
def pool(chain: Chain, tmp_path: Path) -> Pool:
    return Pool(chain, tmp_path)


@pytest.fixture
def owner(pool: Pool) -> Lane:
    return pool.lane(OWNER, state="pending")


@pytest.fixture
def worker(pool: Pool) -> Lane:
    return pool.lane(WORKER, state="pending")


@pytest.fixture
def second(pool: Pool) -> Lane:
    return pool.lane(SECOND, state="pending")


def state(lane: Lane, intent: Intent) -> IntentState:
    return lane.intents([intent.key])[0].state


def block(lane: Lane, intent: Intent) -> int | None:
    return lane.intents([intent.key])[0].block


def send(lane: Lane, *intents: Intent) -> None:
    """Submit, and run the lane once."""
    lane.submit(intents)
    lane.run()


def mine(pool: Pool, *lanes: Lane) -> None:
    """A block, and a run of each lane."""
    pool.chain.mine()
    for lane in lanes:
        lane.run()


def transactions_of(pool: Pool, lane: Lane) -> int:
    """How many the wallet has on the chain or at the node."""
    return int(pool.chain.rpc.call("eth_getTransactionCount", lane.id.wallet, "pending"), 16)


def early_reverts(method: str) -> tuple[float, float]:
    """How many have been counted so far in this process, and the gas they used."""
    names = ("sluice_early_reverts_total", "sluice_early_revert_gas_total")
    first, gas = (REGISTRY.get_sample_value(name, {"method": method}) or 0.0 for name in names)
    return first, gas


def begin(pool: Pool, owner: Lane) -> tuple[Matched, Intent]:
    """A deal of one task whose initialize is at the node and in no block."""
    deal = pool.buy(1)
    first = pool.initialize(deal, 0)
    send(owner, first)
    assert state(owner, first) is IntentState.SENT
    return deal, first


def vote_for(pool: Pool, owner: Lane, voters: Sequence[Lane], trust: int) -> TaskId:
    """A task on which these have voted, which is a consensus; all in one block, which is not mined yet."""
    deal = pool.buy(1, trust)
    send(owner, pool.initialize(deal, 0))
    for voter in voters:
        vote = pool.contribute(deal.tasks[0], voter)
        send(voter, vote)
        assert state(voter, vote) is IntentState.SENT
    return deal.tasks[0]


@pytest.mark.parametrize("method", ["contribute", "contributeAndFinalize"])
def test_a_vote_goes_out_right_behind_initialize_and_both_are_in_one_block(
    pool: Pool, owner: Lane, worker: Lane, method: str
) -> None:
    deal = pool.buy(1)
    first, vote = pool.initialize(deal, 0), (pool.contribute if method == "contribute" else pool.solo)(deal.tasks[0])
    send(worker, vote)
    assert state(worker, vote) is IntentState.QUEUED
    send(owner, first)
    worker.run()
    assert state(worker, vote) is IntentState.SENT
    mine(pool, owner, worker)
    assert block(owner, first) == block(worker, vote) == deal.block_number + 1


def test_with_latest_a_vote_waits_for_the_block_of_initialize(pool: Pool, owner: Lane) -> None:
    deal, _ = begin(pool, owner)
    vote = pool.contribute(deal.tasks[0])
    send(pool.worker, vote)
    assert state(pool.worker, vote) is IntentState.QUEUED


def test_finalize_goes_out_behind_the_last_reveal_and_shares_its_block(
    pool: Pool, owner: Lane, worker: Lane, second: Lane
) -> None:
    task = vote_for(pool, owner, [worker, second], trust=3)
    mine(pool, owner, worker, second)
    reveals = {lane.id: pool.reveal(task, lane) for lane in (worker, second)}
    last = pool.finalize(task)
    send(worker, reveals[worker.id])
    send(owner, last)
    assert state(owner, last) is IntentState.QUEUED, "one of two winners has not revealed"
    send(second, reveals[second.id])
    owner.run()
    assert state(owner, last) is IntentState.SENT
    mine(pool, owner, worker, second)
    assert block(owner, last) == block(worker, reveals[worker.id]) == block(second, reveals[second.id])


def test_a_reveal_is_never_sent_before_the_consensus_is_in_a_mined_block(
    pool: Pool, owner: Lane, worker: Lane, second: Lane
) -> None:
    """Its digest in the mempool could be copied by whoever has not worked."""
    task = vote_for(pool, owner, [worker, second], trust=3)
    reveal = pool.reveal(task, worker)
    ahead = worker.context.pending_readiness
    assert ahead is not None
    (behind_what_is_pending,) = ahead.check([reveal], take_snapshot(pool.chain.rpc, worker.id.wallet, None).moment)
    assert behind_what_is_pending.judgement is Judgement.READY, "the consensus is in the node's pending state"
    before = transactions_of(pool, worker)
    send(worker, reveal)
    worker.run()
    assert state(worker, reveal) is IntentState.QUEUED
    assert transactions_of(pool, worker) == before
    mine(pool, worker)
    assert state(worker, reveal) is IntentState.SENT


def test_with_a_spend_depth_nothing_goes_out_early_and_a_reveal_waits_until_its_consensus_is_that_deep(
    pool: Pool, owner: Lane, worker: Lane
) -> None:
    careful = pool.lane(WORKER, state="pending", spend_depth=2)
    deal, _ = begin(pool, owner)
    vote, reveal = pool.contribute(deal.tasks[0]), pool.reveal(deal.tasks[0])
    send(careful, vote)
    assert state(careful, vote) is IntentState.QUEUED
    send(worker)
    assert state(worker, vote) is IntentState.SENT, "another machine, without a depth, votes at once"
    mine(pool, careful)
    send(careful, reveal)
    assert state(careful, reveal) is IntentState.QUEUED
    mine(pool, careful)
    assert state(careful, reveal) is IntentState.QUEUED
    mine(pool, careful)
    assert state(careful, reveal) is IntentState.SENT


def test_a_vote_that_came_too_early_reverts_is_counted_and_judged_again_and_waits_then(
    pool: Pool, owner: Lane, worker: Lane
) -> None:
    deal, first = begin(pool, owner)
    vote, before = pool.contribute(deal.tasks[0]), early_reverts("contribute")
    send(worker, vote)
    drop(pool, owner, first)
    mine(pool, worker)
    again = worker.intents([vote.key])[0]
    assert (again.state, again.generation) == (IntentState.QUEUED, 1)
    assert "reverted in block" in again.reason
    reverts, gas = (now - then for now, then in zip(early_reverts("contribute"), before, strict=True))
    assert reverts == 1
    assert 21_000 < gas < 200_000
    # The owner's lane sends the same bytes again; this time the vote waits for them to be mined.
    owner.run()
    worker.run()
    assert state(worker, vote) is IntentState.QUEUED
    mine(pool, owner, worker)
    assert state(worker, vote) is IntentState.SENT
    mine(pool, worker)
    assert block(worker, vote) is not None
    assert early_reverts("contribute")[0] == before[0] + 1


def test_a_reorg_of_the_shared_block_sends_the_same_bytes_again_and_the_vote_counts_once(
    pool: Pool, owner: Lane, worker: Lane
) -> None:
    deal, first = begin(pool, owner)
    vote = pool.contribute(deal.tasks[0])
    send(worker, vote)
    mine(pool, owner, worker)
    assert block(worker, vote) == deal.block_number + 1
    pool.chain.rpc.call("anvil_reorg", 1, [])
    # The vote is back at the node before what it relies on is: the tip puts it behind.
    for _ in range(2):
        worker.run()
        owner.run()
    mine(pool, owner, worker)
    assert block(owner, first) == block(worker, vote)
    for _ in range(4):
        mine(pool, owner, worker)
    assert state(worker, vote) is IntentState.FINAL
    assert transactions_of(pool, worker) == 1 + first_transactions(pool, worker)
    (view,) = pool.chain.hub.tasks([deal.tasks[0]])
    assert len(view.contributions) == 1


def test_a_vote_whose_initialize_a_reorg_took_for_good_is_judged_again_and_never_sent_twice(
    pool: Pool, owner: Lane, worker: Lane
) -> None:
    deal, _ = begin(pool, owner)
    vote = pool.contribute(deal.tasks[0])
    send(worker, vote)
    mine(pool, owner, worker)
    pool.chain.rpc.call("anvil_reorg", 1, [])
    for _ in range(3):
        # The owner's lane is away; the worker's bytes come to a chain without the task.
        mine(pool, worker)
    again = worker.intents([vote.key])[0]
    assert (again.state, again.generation) == (IntentState.QUEUED, 1)
    for _ in range(6):
        mine(pool, owner, worker)
    (view,) = pool.chain.hub.tasks([deal.tasks[0]])
    assert len(view.contributions) == 1
    # One was spent without effect, one did it.
    assert transactions_of(pool, worker) == 2 + first_transactions(pool, worker)


def test_a_node_that_freezes_between_two_steps_only_delays_them(pool: Pool, owner: Lane, worker: Lane) -> None:
    deal, first = begin(pool, owner)
    vote = pool.contribute(deal.tasks[0])
    worker.submit([vote])
    freeze(pool.chain.node.pid)
    try:
        assert worker.run().trouble is not None
        assert state(worker, vote) is IntentState.QUEUED
    finally:
        os.kill(pool.chain.node.pid, signal.SIGCONT)
    worker.run()
    mine(pool, owner, worker)
    assert block(owner, first) == block(worker, vote)


def test_where_too_many_come_too_early_each_waits_for_its_block_and_the_log_says_so(
    pool: Pool, owner: Lane, worker: Lane
) -> None:
    with capture_logs() as logs:
        for _ in range(LEAST + 1):
            deal, first = begin(pool, owner)
            vote = pool.contribute(deal.tasks[0])
            send(worker, vote)
            assert state(worker, vote) is IntentState.SENT
            drop(pool, owner, first)
            mine(pool, worker)
            mine(pool, owner, worker)
            mine(pool, owner, worker)
    (paused,) = [entry for entry in logs if entry["action"] == "lane_early_paused"]
    assert paused["until_block"] > deal.block_number
    deal, first = begin(pool, owner)
    vote = pool.contribute(deal.tasks[0])
    send(worker, vote)
    assert state(worker, vote) is IntentState.QUEUED
    mine(pool, owner, worker)
    assert block(owner, first) == deal.block_number + 1
    assert state(worker, vote) is IntentState.SENT


def drop(pool: Pool, lane: Lane, intent: Intent) -> None:
    """Have the node lose the transaction that carries it."""
    record = lane.context.store.holding(lane.id, intent.key)
    assert record is not None
    pool.chain.rpc.call("anvil_dropTransaction", record.newest.tx_hash)


def first_transactions(pool: Pool, lane: Lane) -> int:
    """How many the wallet had sent before its lane began: what made the chain's first blocks."""
    highest = lane.context.store.highest_nonce(lane.id)
    assert highest is not None
    known = range(highest + 1)
    return next(number for number in known if lane.context.store.record(lane.id, Nonce(number)) is not None)


class WithoutPending:
    """The node as one that answers its newest block where it is asked for the pending one, but has a pool to look into.

    anvil tells the whole pool only.
    """

    def __init__(self, rpc: JsonRpc, *, simulates: bool = True) -> None:
        self._rpc = rpc
        self._simulates = simulates
        self.name = rpc.name

    def call(self, method: str, *params: object) -> Any:
        (answer,) = self.batch([(method, params)])
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def batch(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._answer(method, list(params)) for method, params in requests]

    def _answer(self, method: str, params: list[Any]) -> Reply:
        if method == "txpool_contentFrom":
            pending = self._rpc.call("txpool_content")["pending"]
            return {"pending": pending.get(params[0], {}), "queued": {}}
        if method == "eth_simulateV1" and not self._simulates:
            return RpcError(method=method, code=-32601, message="the method does not exist")
        if method in ("eth_call", "eth_getBlockByNumber"):
            params = ["latest" if item == "pending" else item for item in params]
        (answer,) = self._rpc.batch([(method, params)])
        return answer


def test_on_a_node_without_a_pending_state_what_is_pooled_is_simulated(pool: Pool, owner: Lane) -> None:
    worker = pool.lane(WORKER, state="pending", rpc=WithoutPending(pool.chain.rpc))
    deal = pool.buy(1)
    first, vote = pool.initialize(deal, 0), behind(pool.contribute(deal.tasks[0]), owner)
    send(worker, vote)
    assert state(worker, vote) is IntentState.QUEUED
    send(owner, first)
    worker.run()
    assert state(worker, vote) is IntentState.SENT
    mine(pool, owner, worker)
    assert block(owner, first) == block(worker, vote)


def test_finalize_is_simulated_behind_the_reveals_of_all_winners(pool: Pool, worker: Lane, second: Lane) -> None:
    owner = pool.lane(OWNER, state="pending", rpc=WithoutPending(pool.chain.rpc))
    task = vote_for(pool, owner, [worker, second], trust=3)
    mine(pool, owner, worker, second)
    last = behind(pool.finalize(task), worker, second)
    send(worker, pool.reveal(task, worker))
    send(owner, last)
    assert state(owner, last) is IntentState.QUEUED
    send(second, pool.reveal(task, second))
    owner.run()
    assert state(owner, last) is IntentState.SENT
    mine(pool, owner)
    assert block(owner, last) is not None


def test_on_a_node_that_can_neither_a_vote_waits_for_its_block_and_the_log_says_why(pool: Pool, owner: Lane) -> None:
    worker = pool.lane(WORKER, state="pending", rpc=WithoutPending(pool.chain.rpc, simulates=False))
    deal, _ = begin(pool, owner)
    vote = behind(pool.contribute(deal.tasks[0]), owner)
    with capture_logs() as logs:
        send(worker, vote)
        worker.run()
    assert state(worker, vote) is IntentState.QUEUED
    assert [entry["action"] for entry in logs].count("lane_no_pending_state") == 1
    mine(pool, owner, worker)
    assert state(worker, vote) is IntentState.SENT


def behind(intent: Intent, *lanes: Lane) -> Intent:
    """The intent with the wallets that it goes behind, as a machine or the scheduler submits it."""
    return replace(intent, args={**intent.args, BEHIND: ",".join(lane.id.wallet for lane in lanes)})
