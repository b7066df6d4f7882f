from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from chain.pool import CHECK_SECONDS, RpcPool, connect
from chain.rpc import Request, Rpc
from config.settings import read_settings
from protocol.errors import RpcError, RpcUnavailable, WrongChain
from tests.waiting import wait_until

CHAIN = 31337
SEND: Request = ("eth_sendRawTransaction", ("0x01",))
#: Seconds no wait of these tests should take.
PATIENCE = 10.0


@dataclass(slots=True)
class FakeNode:
    """One node; `frozen` fails like a time-out, `stuck` does not even come back until told."""

    name: str
    chain_id: int = CHAIN
    head: int = 100
    frozen: bool = False
    refuses: str | None = None
    #: What it answers to calls.
    fails: RpcError | None = None
    stuck: threading.Event | None = None
    asked: list[str] = field(default_factory=list)

    def call(self, method: str, *params: object) -> Any:
        return self.batch([(method, params)])[0]

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        self.asked += [method for method, _ in requests]
        if self.stuck is not None:
            self.stuck.wait(PATIENCE)
        if self.frozen:
            raise RpcUnavailable(what=self.name, why="no answer within 5 s")
        return [self._answer(method) for method, _ in requests]

    def _answer(self, method: str) -> Any:
        match method:
            case "eth_chainId":
                return hex(self.chain_id)
            case "eth_blockNumber":
                return hex(self.head)
            case "eth_sendRawTransaction" if self.refuses is not None:
                return RpcError(method=method, code=-32000, message=self.refuses)
            case "eth_call" if self.fails is not None:
                return self.fails
        return self.name


@dataclass(slots=True)
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Setup:
    nodes: list[FakeNode]
    clock: Clock
    pool: RpcPool

    def pass_time(self, seconds: float) -> None:
        """Let time pass and wait until the check that is due then has ended."""
        self.clock.now += seconds
        self.pool.call("eth_call")
        (threads,) = self.pool._threads.values()
        threads.shutdown(wait=True)
        self.pool._threads.clear()


@pytest.fixture
def setup() -> Iterator[Setup]:
    nodes = [FakeNode("a"), FakeNode("b"), FakeNode("c")]
    clock = Clock()
    pool = RpcPool(nodes, CHAIN, clock=clock)
    yield Setup(nodes, clock, pool)
    pool.close()


def test_reads_stay_with_one_node(setup: Setup) -> None:
    assert {setup.pool.call("eth_call") for _ in range(10)} == {"a"}


def test_a_read_moves_on_when_its_node_does_not_answer_and_stays_there(setup: Setup) -> None:
    setup.pool.call("eth_call")
    setup.nodes[0].frozen = True

    assert setup.pool.call("eth_call") == "b"
    asked = len(setup.nodes[0].asked)
    assert setup.pool.call("eth_call") == "b"
    assert len(setup.nodes[0].asked) == asked


def test_a_frozen_node_is_checked_in_the_background_and_used_again_when_needed(setup: Setup) -> None:
    setup.pool.call("eth_call")
    setup.nodes[0].frozen = True
    setup.pool.call("eth_call")
    setup.nodes[0].frozen = False
    setup.pass_time(CHECK_SECONDS)

    setup.nodes[1].frozen = setup.nodes[2].frozen = True

    assert setup.pool.call("eth_call") == "a"


def test_a_node_on_another_chain_is_not_asked() -> None:
    stranger, right = FakeNode("stranger", chain_id=1), FakeNode("right")
    pool = RpcPool([stranger, right], CHAIN, clock=Clock())
    # The nodes are asked who they are in the background, from the first call on.
    wait_until(lambda: pool.call("eth_call") == "right", 5)
    pool.close()


def test_only_strangers_is_a_wrong_chain(setup: Setup) -> None:
    for node in setup.nodes:
        node.chain_id = 1

    with pytest.raises(WrongChain, match="none of a or b or c is on chain 31337"):
        setup.pool.call("eth_call")


def test_a_node_that_falls_behind_is_left(setup: Setup) -> None:
    setup.pool.call("eth_call")
    for node in setup.nodes[1:]:
        node.head = 200
    setup.pass_time(CHECK_SECONDS)

    assert setup.pool.call("eth_call") != "a"


def test_no_node_at_all_says_so(setup: Setup) -> None:
    for node in setup.nodes:
        node.frozen = True

    with pytest.raises(RpcUnavailable):
        setup.pool.call("eth_call")


def test_transactions_go_to_every_node(setup: Setup) -> None:
    setup.pool.call("eth_call")
    setup.pool.batch([SEND])
    setup.pool.close()

    assert all("eth_sendRawTransaction" in node.asked for node in setup.nodes)


def test_one_node_that_takes_a_transaction_suffices(setup: Setup) -> None:
    setup.nodes[0].refuses = "already known"
    setup.nodes[1].frozen = True

    assert setup.pool.batch([SEND]) == ["c"]


def test_a_stuck_node_does_not_hold_up_a_transaction_that_another_took(setup: Setup) -> None:
    setup.pool.call("eth_call")
    setup.nodes[2].stuck = release = threading.Event()

    answers = setup.pool.batch([SEND])
    release.set()

    assert answers[0] in ("a", "b")


def test_a_transaction_that_all_refuse_keeps_the_present_nodes_words(setup: Setup) -> None:
    setup.pool.call("eth_call")
    for node in setup.nodes:
        node.refuses = f"nonce too low, says {node.name}"

    (answer,) = setup.pool.batch([SEND])

    assert answer.message == "nonce too low, says a"


def test_several_addresses_in_one_setting_make_a_pool_and_one_a_node() -> None:
    assert isinstance(connect(read_settings(rpc_url="http://a:1, http://b:2")), RpcPool)
    assert isinstance(connect(read_settings(rpc_url="http://a:1")), Rpc)


@pytest.mark.parametrize(
    ("code", "message"),
    [(-32005, "limit exceeded"), (-32603, "internal"), (-32000, "header not found"), (-32000, "Rate limit reached")],
)
def test_a_read_that_a_node_fails_at_is_answered_by_the_next(setup: Setup, code: int, message: str) -> None:
    setup.nodes[0].fails = RpcError(method="eth_call", code=code, message=message)
    assert setup.pool.call("eth_call") == "b"
    setup.nodes[0].asked.clear()
    assert setup.pool.call("eth_call") == "b"
    assert "eth_call" not in setup.nodes[0].asked


def test_what_every_node_fails_at_is_told_in_the_first_ones_words(setup: Setup) -> None:
    for node in setup.nodes:
        node.fails = RpcError(method="eth_call", code=-32005, message=f"limit of {node.name}")
    with pytest.raises(RpcError, match="limit of a"):
        setup.pool.call("eth_call")


def test_a_contracts_refusal_is_no_fault_of_the_node(setup: Setup) -> None:
    setup.nodes[0].fails = RpcError(method="eth_call", code=-32603, message="execution reverted", data="0x")
    with pytest.raises(RpcError, match="reverted"):
        setup.pool.call("eth_call")
    assert "eth_call" not in setup.nodes[1].asked
