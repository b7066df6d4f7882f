"""Steps that share a block on geth, which sorts by the effective tip and builds its pending block when it is asked for.

Run by `make test-geth`, since geth builds long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from chain.lane.model.intent import BEHIND, Intent, IntentState
from chain.lane.run import Lane
from chain.rpc.answers import Reply
from chain.rpc.client import JsonRpc, Request, Rpc
from ops.poco.accounts import FUNDED_ACCOUNTS, dev_key
from ops.poco.artifacts import ArtifactStore
from ops.poco.deploy import deploy
from ops.poco.sender import DirectSender, TxRequest
from ops.stack import tools
from protocol.types import Contract, Wei
from tests.integration.conftest import Chain
from tests.integration.lane import geth
from tests.integration.lane.poco_pool import OWNER, WORKER, Pool
from tests.waiting import wait_until

SECOND = 5
WAIT_SECONDS = 60.0


class GethChain(Chain):
    """geth with PoCo on it: a block each second."""

    def mine(self, blocks: int = 1) -> None:
        """Wait for so many blocks."""
        for _ in range(blocks):
            before = head(self.rpc)
            wait_until(lambda: head(self.rpc) > before, WAIT_SECONDS, what="a block")  # noqa: B023 - at once


class WithoutPending:
    """The node as one whose pending block is its newest."""

    def __init__(self, rpc: JsonRpc) -> None:
        self._rpc = rpc
        self.name = rpc.name

    def call(self, method: str, *params: object) -> Any:
        return self._rpc.call(method, *params)

    def batch(self, requests: Sequence[Request]) -> list[Reply]:
        reads = ("eth_call", "eth_getBlockByNumber")
        return self._rpc.batch(
            [
                (method, ["latest" if item == "pending" else item for item in params] if method in reads else params)
                for method, params in requests
            ]
        )


def head(rpc: Rpc) -> int:
    return int(rpc.call("eth_blockNumber"), 16)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    owner = dev_key(0)
    with geth.running(tmp_path_factory.mktemp("geth"), owner) as rpc:
        wait_until(lambda: int(rpc.call("eth_getBalance", owner.wallet, "latest"), 16), WAIT_SECONDS, what="coins")
        sender = DirectSender(owner, rpc, geth.CHAIN_ID)
        funded = tuple(dev_key(index).wallet for index in range(1, FUNDED_ACCOUNTS))
        at = deploy(sender, ArtifactStore(tools.npm_packages()), fund=funded)
        sender.run([TxRequest(Contract(wallet), "0x", 21_000, Wei(10**18)) for wallet in funded])
        yield GethChain(None, rpc, at, chain_id=geth.CHAIN_ID)  # type: ignore[arg-type]  # no anvil


@pytest.fixture(scope="module")
def pool(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return Pool(chain, tmp_path_factory.mktemp("pool"))


def send(lane: Lane, *intents: Intent) -> None:
    lane.submit(intents)
    lane.run()


def mined_in(pool: Pool, lane: Lane, intent: Intent) -> int:
    (found,) = pool.drive(lane, intent, until=lambda state: state in (IntentState.MINED, IntentState.FINAL))
    assert found.block is not None
    assert found.generation == 0
    return found.block


def begin(pool: Pool, owner: Lane, *voters: Lane, trust: int = 1) -> tuple[Intent, list[Intent]]:
    """Initialize and the votes, sent one right after the other at the beginning of a block's time."""
    deal = pool.buy(1, trust)
    first = pool.initialize(deal, 0)
    votes = [pool.contribute(deal.tasks[0], voter) for voter in voters]
    pool.chain.mine()
    send(owner, first)
    for voter, vote in zip(voters, votes, strict=True):
        send(voter, vote)
    return first, votes


def test_initialize_and_the_votes_share_a_block_and_so_do_the_reveals_and_finalize(pool: Pool) -> None:
    owner, worker, second = (pool.lane(account, state="pending") for account in (OWNER, WORKER, SECOND))
    first, votes = begin(pool, owner, worker, second, trust=3)
    task = votes[0].subject
    blocks = {mined_in(pool, lane, vote) for lane, vote in zip((worker, second), votes, strict=True)}
    assert blocks == {mined_in(pool, owner, first)}
    reveals = [pool.reveal(task, lane) for lane in (worker, second)]  # type: ignore[arg-type]  # a task id
    last = pool.finalize(task)  # type: ignore[arg-type]
    pool.chain.mine()
    for lane, reveal in zip((worker, second), reveals, strict=True):
        send(lane, reveal)
    send(owner, last)
    ends = {mined_in(pool, lane, reveal) for lane, reveal in zip((worker, second), reveals, strict=True)}
    assert ends == {mined_in(pool, owner, last)}


def test_a_vote_is_simulated_behind_what_is_pooled_where_pending_is_the_newest_block(pool: Pool) -> None:
    owner, blind = (
        pool.lane(OWNER, state="pending"),
        pool.lane(WORKER, state="pending", rpc=WithoutPending(pool.chain.rpc)),
    )
    deal = pool.buy(1)
    first, vote = pool.initialize(deal, 0), pool.contribute(deal.tasks[0])
    vote.args[BEHIND] = owner.id.wallet  # type: ignore[index]  # a dict
    pool.chain.mine()
    send(owner, first)
    send(blind, vote)
    assert mined_in(pool, blind, vote) == mined_in(pool, owner, first)
