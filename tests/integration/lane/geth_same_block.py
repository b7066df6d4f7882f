"""What steps that share a block assume of geth: its order in a block, its pending state, and how it simulates one.

Run by `make test-geth`, since geth builds long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from chain.lane.model.intent import BEHIND, Intent
from chain.lane.model.nonce import Fees
from chain.lane.rules.behind import BehindPending
from chain.lane.rules.fees import GWEI
from chain.lane.rules.readiness import READY, Judgement, Moment, ReadinessVerdict
from chain.lane.signer import KeySigner, Unsigned
from chain.rpc.answers import Reply
from chain.rpc.client import Rpc
from ops.poco.accounts import dev_key
from protocol.ethereum.signing import Key
from protocol.types import BlockNumber, Contract, Nonce, Timestamp, Wei
from tests.integration.lane import geth
from tests.integration.lane.rig import GAS, WAIT_SECONDS, address_of
from tests.waiting import wait_until

LEADER, FOLLOWER = dev_key(30), dev_key(31)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rpc]:
    """geth with native tokens for both wallets."""
    with geth.running(tmp_path_factory.mktemp("geth"), LEADER) as rpc:
        wait_until(lambda: balance(rpc, LEADER.wallet, "latest"), WAIT_SECONDS, what="the native tokens")
        begin_block(rpc)
        pay(rpc, LEADER, Contract(FOLLOWER.wallet), tip=1, value=10**18)
        wait_until(lambda: balance(rpc, FOLLOWER.wallet, "latest"), WAIT_SECONDS, what="the other wallet's tokens")
        yield rpc


def balance(rpc: Rpc, account: str, tag: str) -> int:
    """By a call, as views are asked: code that returns the account's balance."""
    code = f"0x73{account[2:]}3160005260206000f3"
    return int(rpc.call("eth_call", {"data": code}, tag), 16)


def head(rpc: Rpc) -> int:
    return int(rpc.call("eth_blockNumber"), 16)


def begin_block(rpc: Rpc) -> int:
    """Wait for a block and for the pool to know it: almost a second is left for the next; its number."""
    before = head(rpc)
    wait_until(lambda: head(rpc) > before, WAIT_SECONDS, what="a block")
    wait_until(lambda: rpc.call("txpool_status")["pending"] == "0x0", WAIT_SECONDS, what="the pool to know the block")
    return head(rpc)


def pay(rpc: Rpc, key: Key, to: Contract, *, tip: int, value: int = 1) -> str:
    """Send a payment with a tip in gwei; its hash."""
    nonce = Nonce(int(rpc.call("eth_getTransactionCount", key.wallet, "pending"), 16))
    fees = Fees(Wei(50 * GWEI), Wei(tip * GWEI))
    (attempt,) = KeySigner(key).sign([Unsigned(geth.CHAIN_ID, nonce, to, "0x", GAS, fees, value=Wei(value))])
    sent: str = rpc.call("eth_sendRawTransaction", attempt.raw)
    return sent


def places(rpc: Rpc, *hashes: str) -> list[tuple[int, int]]:
    """(block, place in it) of each, once all are mined."""

    def look() -> list[tuple[int, int]]:
        found = [rpc.call("eth_getTransactionReceipt", tx_hash) for tx_hash in hashes]
        if not all(found):
            return []
        return [(int(item["blockNumber"], 16), int(item["transactionIndex"], 16)) for item in found]

    return wait_until(look, WAIT_SECONDS, what="the receipts")


@pytest.mark.parametrize(("first", "then"), [(1, 4), (4, 1)])
def test_the_higher_tip_comes_first_in_a_block_whichever_came_first(node: Rpc, first: int, then: int) -> None:
    """Of two that a machine under load sent into different blocks nothing can be told: then once more."""

    def look() -> list[tuple[int, int]]:
        begin_block(node)
        sent = [pay(node, key, address_of("x"), tip=tip) for key, tip in ((LEADER, first), (FOLLOWER, then))]
        found = places(node, *sent)
        return found if found[0][0] == found[1][0] else []

    one, other = wait_until(look, WAIT_SECONDS, what="both in one block")
    assert (one < other) is (first > then)


def test_a_call_about_the_pending_state_sees_what_is_pooled(node: Rpc) -> None:
    payee = address_of("seen while pending")

    def look() -> bool:
        begin_block(node)
        pay(node, LEADER, payee, tip=1)
        pending, mined = balance(node, payee, "pending"), balance(node, payee, "latest")
        return pending == mined + 1

    assert wait_until(look, WAIT_SECONDS, what="a payment that is pending and not mined")


class OneView:
    """A view of an account without code, which answers no bytes."""

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        return [ReadinessVerdict(Judgement.WAIT, "as if pending were the newest block")] * len(intents)

    def views(self, intents: Sequence[Intent]) -> list[str]:
        return ["0x"] * len(intents)

    def judge_all(self, intents: Sequence[Intent], answers: Sequence[Reply], at: Moment) -> list[ReadinessVerdict]:
        assert list(answers) == ["0x"] * len(intents)
        return [READY] * len(intents)


def test_what_a_wallet_has_pooled_is_told_and_simulated(node: Rpc) -> None:
    hub = address_of("hub")
    intent = Intent.new(geth.CHAIN_ID, FOLLOWER.wallet, "contribute", "0x" + "0a" * 32, {BEHIND: LEADER.wallet})

    def look() -> bool:
        # As if it were far ahead, so that geth's pending block counts as an old one.
        at = Moment(BlockNumber(begin_block(node) + 10**6), Timestamp(1))
        pay(node, LEADER, hub, tip=1)
        (verdict,) = BehindPending(node, hub, OneView()).check([intent], at)
        return verdict == READY

    assert wait_until(look, WAIT_SECONDS, what="a payment that is pooled")


def test_nothing_is_simulated_for_a_wallet_with_nothing_pooled(node: Rpc) -> None:
    args: dict[str, Any] = {BEHIND: dev_key(32).wallet}
    intent = Intent.new(geth.CHAIN_ID, FOLLOWER.wallet, "contribute", "0x" + "0a" * 32, args)
    at = Moment(BlockNumber(10**6), Timestamp(1))
    (verdict,) = BehindPending(node, address_of("hub"), OneView()).check([intent], at)
    assert verdict.judgement is Judgement.WAIT
