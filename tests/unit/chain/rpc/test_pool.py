"""Which node of a pool is asked, and when another."""

from __future__ import annotations

import threading

import pytest
from structlog.testing import capture_logs

from chain.rpc.client import Rpc
from chain.rpc.pool import BEHIND_SECONDS, CHECK_SECONDS, RpcPool, connect
from config.settings import read_settings
from protocol.errors import RpcError, RpcUnavailable, WrongChain
from tests.unit.chain.rpc.fake_nodes import CHAIN, SEND, Clock, FakeNode, Setup


def test_reads_stay_with_one_node(setup: Setup) -> None:
    setup.begin()
    assert {setup.pool.call("eth_call") for _ in range(10)} == {"a"}


def test_a_read_moves_on_when_its_node_does_not_answer_and_stays_there(setup: Setup) -> None:
    setup.begin()
    setup.nodes[0].frozen = True

    assert setup.pool.call("eth_call") == "b"
    asked = len(setup.nodes[0].asked)
    assert setup.pool.call("eth_call") == "b"
    assert len(setup.nodes[0].asked) == asked


def test_a_frozen_node_is_checked_in_the_background_and_used_again_when_needed(setup: Setup) -> None:
    setup.begin()
    setup.nodes[0].frozen = True
    setup.pool.call("eth_call")
    setup.nodes[0].frozen = False
    setup.pass_time(CHECK_SECONDS)

    setup.nodes[1].frozen = setup.nodes[2].frozen = True

    assert setup.pool.call("eth_call") == "a"


def test_a_node_on_another_chain_is_not_asked() -> None:
    stranger, right = FakeNode("stranger", chain_id=1), FakeNode("right")
    pool = RpcPool([stranger, right], CHAIN, clock=Clock())
    for _ in range(3):
        assert pool.call("eth_call") == "right"
    pool.batch([SEND])
    pool.close()
    assert set(stranger.asked) == {"eth_chainId", "eth_blockNumber"}


def test_a_node_that_is_stuck_from_the_start_delays_no_call() -> None:
    stuck, right = FakeNode("stuck", stuck=threading.Event()), FakeNode("right")
    pool = RpcPool([stuck, right], CHAIN, clock=Clock())
    assert pool.call("eth_call") == "right"
    assert pool.batch([SEND]) == ["right"]
    assert stuck.stuck is not None
    stuck.stuck.set()
    pool.close()
    assert "eth_call" not in stuck.asked


def test_a_stuck_node_takes_no_thread_from_the_others(setup: Setup) -> None:
    setup.begin()
    setup.nodes[2].stuck = release = threading.Event()
    for _ in range(20):
        assert setup.pool.batch([SEND])[0] in ("a", "b")
    release.set()


def test_once_a_node_has_failed_what_stood_in_line_for_it_is_let_go(setup: Setup) -> None:
    setup.begin()
    last = setup.nodes[2]
    last.asked.clear()
    last.stuck, last.frozen = threading.Event(), True
    for _ in range(20):
        setup.pool.batch([SEND])
    last.stuck.set()
    setup.pool.close()
    assert last.asked.count("eth_sendRawTransaction") <= 2


def test_if_the_only_node_known_fails_the_check_of_the_others_is_waited_for(setup: Setup) -> None:
    gate = threading.Event()
    for node in setup.nodes[1:]:
        node.stuck = gate
    setup.pool.call("eth_call")
    setup.nodes[0].frozen = True
    threading.Timer(0.05, gate.set).start()
    assert setup.pool.call("eth_call") in ("b", "c")


def test_nodes_that_come_up_late_are_found_by_the_next_call(setup: Setup) -> None:
    for node in setup.nodes:
        node.frozen = True
    with pytest.raises(RpcUnavailable, match="right chain"):
        setup.pool.call("eth_call")
    setup.nodes[1].frozen = False
    assert setup.pool.call("eth_call") == "b"


def test_what_is_wrong_with_a_node_is_logged_once(setup: Setup) -> None:
    setup.begin()
    setup.nodes[1].chain_id, setup.nodes[2].frozen = 1, True
    with capture_logs() as lines:
        for _ in range(3):
            setup.pass_time(CHECK_SECONDS)
    assert sorted(line["action"] for line in lines) == ["rpc_down", "rpc_wrong_chain"]


def test_a_pool_with_only_nodes_of_other_chains_is_a_wrong_chain_and_to_who_asks_it_gives_no_answer(
    setup: Setup,
) -> None:
    """A start ends at the first, and whatever runs asks again: nothing is decided by it."""
    for node in setup.nodes:
        node.chain_id = 1

    with pytest.raises(WrongChain, match="none of a or b or c is on chain 31337") as raised:
        setup.pool.call("eth_call")
    assert isinstance(raised.value, RpcUnavailable)


def test_a_node_that_falls_behind_is_left(setup: Setup) -> None:
    setup.begin()
    for node in setup.nodes[1:]:
        node.head = 200
    setup.pass_time(CHECK_SECONDS)

    assert setup.pool.call("eth_call") != "a"


def test_no_node_at_all_says_so(setup: Setup) -> None:
    for node in setup.nodes:
        node.frozen = True

    with pytest.raises(RpcUnavailable):
        setup.pool.call("eth_call")


def test_nodes_that_are_all_away_for_hours_are_still_said_to_be_away(setup: Setup) -> None:
    setup.begin()
    for node in setup.nodes:
        node.frozen = True

    for _ in range(4000):
        with pytest.raises(RpcUnavailable):
            setup.pool.call("eth_call")


def test_several_addresses_in_one_setting_make_a_pool_and_one_a_node() -> None:
    assert isinstance(connect(read_settings(rpc_url="http://a:1, http://b:2")), RpcPool)
    assert isinstance(connect(read_settings(rpc_url="http://a:1")), Rpc)


@pytest.mark.parametrize(
    ("code", "message"),
    [(-32005, "limit exceeded"), (-32603, "internal"), (-32000, "header not found"), (-32000, "Rate limit reached")],
)
def test_a_read_that_a_node_fails_at_is_answered_by_the_next(setup: Setup, code: int, message: str) -> None:
    setup.begin()
    setup.nodes[0].fails = RpcError(method="eth_call", code=code, message=message)
    assert setup.pool.call("eth_call") == "b"
    setup.nodes[0].asked.clear()
    assert setup.pool.call("eth_call") == "b"
    assert "eth_call" not in setup.nodes[0].asked


def test_what_every_node_fails_at_is_the_first_ones_error(setup: Setup) -> None:
    setup.begin()
    for node in setup.nodes:
        node.fails = RpcError(method="eth_call", code=-32005, message=f"limit of {node.name}")
    with pytest.raises(RpcError, match="limit of a"):
        setup.pool.call("eth_call")


def test_a_contracts_refusal_is_no_fault_of_the_node(setup: Setup) -> None:
    setup.begin()
    setup.nodes[0].fails = RpcError(method="eth_call", code=-32603, message="execution reverted", data="0x")
    with pytest.raises(RpcError, match="reverted"):
        setup.pool.call("eth_call")
    assert "eth_call" not in setup.nodes[1].asked


@pytest.mark.parametrize("nothing", [None, "0x"])
def test_a_node_that_shows_nothing_does_not_decide_while_another_shows_something(setup: Setup, nothing: object) -> None:
    setup.begin()
    setup.nodes[0].says = nothing
    assert setup.pool.call("eth_call") in ("b", "c")


def test_what_no_node_shows_is_the_present_nodes_answer_and_no_node_counts_as_failed(setup: Setup) -> None:
    setup.begin()
    for node in setup.nodes:
        node.says = None
    assert setup.pool.call("eth_call") is None
    for node in setup.nodes:
        node.says = ""
    assert setup.pool.call("eth_call") == "a"


def test_a_head_never_goes_backwards_for_readers_when_the_node_changes(setup: Setup) -> None:
    setup.begin()
    setup.nodes[0].head = 102
    assert setup.pool.call("eth_blockNumber") == hex(102)
    setup.nodes[0].frozen = True
    with pytest.raises(RpcUnavailable, match="its head is block 100, behind block 102"):
        setup.pool.call("eth_blockNumber")
    setup.nodes[2].head = 102
    assert setup.pool.call("eth_blockNumber") == hex(102)


def test_a_chain_that_was_rolled_back_is_followed_again_after_a_while(setup: Setup) -> None:
    setup.begin()
    assert setup.pool.call("eth_blockNumber") == hex(100)
    for node in setup.nodes:
        node.head = 50
    with pytest.raises(RpcUnavailable, match="behind block 100"):
        setup.pool.call("eth_blockNumber")
    setup.clock.now += BEHIND_SECONDS
    assert setup.pool.call("eth_blockNumber") == hex(50)
    assert setup.pool.call("eth_blockNumber") == hex(50)


@pytest.mark.parametrize("syncing", [True, {}, {"currentBlock": "0x1", "highestBlock": "0x64"}])
def test_a_node_that_still_reads_the_chain_is_not_asked(setup: Setup, syncing: object) -> None:
    setup.begin()
    setup.nodes[0].syncing = syncing
    setup.pass_time(CHECK_SECONDS)
    assert setup.pool.call("eth_call") != "a"


@pytest.mark.parametrize("syncing", [False, None, {"currentBlock": "0x64", "highestBlock": "0x64"}])
def test_a_node_that_has_read_the_chain_is_asked_however_it_says_so(setup: Setup, syncing: object) -> None:
    setup.begin()
    setup.nodes[0].syncing = syncing
    setup.pass_time(CHECK_SECONDS)
    assert setup.pool.call("eth_call") == "a"


def test_nodes_that_all_still_read_the_chain_are_better_than_none(setup: Setup) -> None:
    setup.begin()
    for node in setup.nodes:
        node.syncing = True
    setup.pass_time(CHECK_SECONDS)
    assert setup.pool.call("eth_call") in ("a", "b", "c")
