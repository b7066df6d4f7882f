"""What is asked of which kind of node to see what is pending, and that what it cannot tell waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from chain.lane.model.intent import BEHIND, Intent
from chain.lane.rules.behind import BehindPending
from chain.lane.rules.readiness import READY, Judgement, Moment, ReadinessVerdict
from chain.rpc.answers import Reply
from chain.rpc.client import Request
from chain.testing import FakeChain
from protocol.errors import RpcError
from protocol.types import BlockNumber, Contract, Timestamp, Wallet

HUB, WALLET, LEADER = Contract("0x" + "0b" * 20), Wallet("0x" + "01" * 20), Wallet("0x" + "02" * 20)
NOW = Moment(BlockNumber(10), Timestamp(1000))
WAIT = ReadinessVerdict(Judgement.WAIT, "the task is not initialized yet")


class OneView:
    """Views that say READY where an answer says so. `pending`: what the node's pending state says."""

    def __init__(self, pending: str) -> None:
        self._pending = pending

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        return self.judge_all(intents, [self._pending] * len(intents), at)

    def views(self, intents: Sequence[Intent]) -> list[str]:
        return [f"0x{number:02x}" for number, _ in enumerate(intents)]

    def judge_all(self, intents: Sequence[Intent], answers: Sequence[Reply], at: Moment) -> list[ReadinessVerdict]:
        assert len(answers) == len(intents)
        return [READY if answer == "ready" else WAIT for answer in answers]


class Node(FakeChain):
    """Answers by method, and remembers what it was asked."""

    def __init__(self, **answers: Callable[[Sequence[Any]], Any]) -> None:
        super().__init__(HUB)
        self._answers = {"web3_clientVersion": lambda _: "anvil/v1.7.1", **answers}
        self.log: list[tuple[str, Sequence[Any]]] = []

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        self.log += requests
        return [self._answers[method](params) for method, params in requests]

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.log]


def intent(behind: str = LEADER) -> Intent:
    return Intent.new(1, WALLET, "contribute", "0x" + "0a" * 32, {BEHIND: behind} if behind else {})


def pooled(*nonces: int, to: str = HUB) -> Callable[[Sequence[Any]], Any]:
    content = {str(nonce): {"from": LEADER, "to": to, "input": f"0x{nonce:02x}"} for nonce in nonces}
    return lambda _: {"pending": content, "queued": {}}


def simulated(params: Sequence[Any]) -> Any:
    """Every view answers that it is ready."""
    (state,) = params[0]["blockStateCalls"]
    return [{"calls": [{"returnData": "ready"} for _ in state["calls"]]}]


def newest(number: int) -> Callable[[Sequence[Any]], Any]:
    return lambda _: {"number": hex(number)}


def missing(_: Sequence[Any]) -> RpcError:
    return RpcError(method="x", code=-32601, message="the method does not exist")


def check(node: Node, *intents: Intent, pending: str = "no") -> list[Judgement]:
    return [item.judgement for item in BehindPending(node, HUB, OneView(pending)).check(intents, NOW)]


def test_what_the_pending_state_shows_is_ready_and_nothing_else_is_asked() -> None:
    node = Node()
    assert check(node, intent(), pending="ready") == [Judgement.READY]
    assert node.methods == []


def test_a_node_that_builds_a_pending_block_is_believed_and_asked_for_it_rarely() -> None:
    node = Node(eth_getBlockByNumber=newest(11))
    ahead = BehindPending(node, HUB, OneView("no"))
    for _ in range(3):
        assert ahead.check([intent()], NOW)[0].judgement is Judgement.WAIT
    assert node.methods == ["eth_getBlockByNumber", "web3_clientVersion"]


def test_what_geths_pending_block_does_not_show_is_simulated_since_that_block_may_be_an_old_one() -> None:
    node = Node(
        eth_getBlockByNumber=newest(11),
        web3_clientVersion=lambda _: "Geth/v1.17.10-stable/linux-amd64/go1.26",
        txpool_contentFrom=pooled(9),
        eth_simulateV1=simulated,
    )
    assert check(node, intent()) == [Judgement.READY]


def test_a_node_whose_pending_block_is_its_newest_simulates_what_is_pooled_in_the_order_of_nonces() -> None:
    node = Node(eth_getBlockByNumber=newest(10), txpool_contentFrom=pooled(12, 9, 10), eth_simulateV1=simulated)
    assert check(node, intent()) == [Judgement.READY]
    (call,) = [params for method, params in node.log if method == "eth_simulateV1"]
    (state,) = call[0]["blockStateCalls"]
    assert [item["data"] for item in state["calls"]] == ["0x09", "0x0a", "0x0c", "0x00"]
    assert call[1] == "latest"


def test_a_wallet_that_several_go_behind_is_looked_up_once_and_all_are_simulated_together() -> None:
    node = Node(eth_getBlockByNumber=newest(10), txpool_contentFrom=pooled(9), eth_simulateV1=simulated)
    assert check(node, intent(), intent(), intent(f"{LEADER},{WALLET}")) == [Judgement.READY] * 3
    asked = ["eth_getBlockByNumber", "eth_simulateV1", *["txpool_contentFrom"] * 2, "web3_clientVersion"]
    assert sorted(node.methods) == asked


@pytest.mark.parametrize("to", ["0x" + "0c" * 20, None])
def test_a_wallet_with_nothing_for_the_hub_at_the_node_lets_it_wait(to: Any) -> None:
    node = Node(eth_getBlockByNumber=newest(10), txpool_contentFrom=pooled(9, to=to))
    assert check(node, intent()) == [Judgement.WAIT]


def test_an_intent_that_names_no_wallet_waits_and_costs_no_request() -> None:
    node = Node()
    assert check(node, intent("")) == [Judgement.WAIT]
    assert node.methods == []


@pytest.mark.parametrize(
    "answers",
    [
        {"txpool_contentFrom": missing},
        {"txpool_contentFrom": lambda _: None},
        {"txpool_contentFrom": lambda _: {"unexpected": 1}},
        {"txpool_contentFrom": pooled(9), "eth_simulateV1": missing},
        {"txpool_contentFrom": pooled(9), "eth_simulateV1": lambda _: []},
        {"txpool_contentFrom": pooled(9), "eth_simulateV1": lambda _: [{"calls": []}]},
        {"txpool_contentFrom": pooled(9), "eth_simulateV1": lambda _: {"calls": "0x"}},
    ],
)
def test_what_a_node_cannot_tell_waits(answers: dict[str, Callable[[Sequence[Any]], Any]]) -> None:
    node = Node(eth_getBlockByNumber=newest(10), **answers)
    assert check(node, intent()) == [Judgement.WAIT]


def test_a_node_that_does_not_know_the_pending_block_is_one_without() -> None:
    node = Node(eth_getBlockByNumber=missing, txpool_contentFrom=pooled(9), eth_simulateV1=simulated)
    assert check(node, intent()) == [Judgement.READY]
