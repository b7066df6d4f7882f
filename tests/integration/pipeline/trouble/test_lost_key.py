"""What SECURITY.md says of a lost pool key: deals matched before a transfer of the workerpool are the old wallet's."""

from __future__ import annotations

from eth_abi.abi import encode

from ops.poco.sender import TxRequest
from ops.pool.on_chain import XS
from protocol.poco.view import TaskStatus
from protocol.types import Contract
from tests.integration.pipeline.conftest import OWNER, REQUESTER, Pool
from tests.waiting import until

#: `transferFrom`: a workerpool is an ERC-721 token.
TRANSFER = "0x23b872dd"


def test_deals_matched_before_the_workerpool_was_transferred_are_finished_by_the_scheduler_of_the_old_key(
    pool: Pool,
) -> None:
    alone, voted = pool.buy(trust=1, volume=2, category=XS), pool.buy(trust=3, category=XS)
    until("all are on chain", lambda: all(view.status is TaskStatus.ACTIVE for view in pool.views(voted)))
    old, new = pool.chain.sender(OWNER), pool.chain.sender(REQUESTER)
    workerpool = Contract(str(pool.settings.workerpool))
    moved = encode(["address", "address", "uint256"], [old.wallet, new.wallet, int(workerpool, 16)])
    # The lane's next transaction has the nonce that this takes: it goes on with the one after it.
    old.send([TxRequest(pool.chain.at.workerpool_registry, TRANSFER + moved.hex(), 200_000)])
    until("the workerpool is another wallet's", lambda: pool.chain.hub.workerpool(workerpool).owner == new.wallet)
    for number in range(3):
        pool.enrol(number, slots=2)
    pool.await_status(alone, TaskStatus.COMPLETED)
    pool.await_status(voted, TaskStatus.COMPLETED)
    assert set(pool.locked()) == {0}
