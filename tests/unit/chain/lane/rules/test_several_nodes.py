"""A transaction goes to several nodes, and each refuses it in its own way: which of them decides; and what a lane does
whose nodes are all of another chain.
"""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import Fees, Purpose
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.send_errors import RANKS, Kind, deciding
from chain.rpc.pool import _join_answers
from protocol.errors import NodesOfOtherChain, RpcError
from protocol.types import Nonce
from tests.unit.chain.lane.model import GWEI
from tests.unit.chain.lane.rig import Rig

SEND = "eth_sendRawTransaction"
CAP = "tx fee (1.10 ether) exceeds the configured cap (1.00 ether)"
BUSY = "failed to forward transaction: sequencer unreachable"


def refusal(words: str, code: int = -32000) -> RpcError:
    return RpcError(method=SEND, code=code, message=words)


def beside(rig: Rig, words: str) -> None:
    """From now on the lane's first node refuses every transaction in these words; the model is its second."""
    rig.chain.lies[SEND] = lambda params: _join_answers([refusal(words), rig.chain._send(params[0])])


def _live(words: str | None) -> tuple[list[tuple[Purpose, Fees]], list[IntentState], dict[str, int]]:
    """Attempts at the first nonce, ends and deeds of a lane through a time of full blocks and a rising base fee."""
    rig = Rig()
    if words is not None:
        beside(rig, words)
    keys = rig.submit("any", "a")
    rig.run()
    rig.chain.per_block = 0
    rig.step(2)
    rig.chain.base_fee = 5 * GWEI
    rig.chain.per_block = 8
    keys += rig.submit("any", "b")
    rig.step(14)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    attempts = [(attempt.purpose, attempt.fees) for attempt in record.attempts]
    return attempts, [rig.state(key) for key in keys], dict(rig.chain.executed())


@pytest.mark.parametrize("words", [BUSY, CAP, "transaction underpriced", "txpool is full", "invalid sender", "hm"])
def test_a_node_that_refuses_everything_changes_nothing_while_another_has_the_transactions(words: str) -> None:
    assert _live(words) == _live(None)


def test_what_one_nodes_fee_cap_refuses_is_kept_while_another_node_is_busy() -> None:
    rig = Rig()
    rig.chain.lies[SEND] = lambda _: _join_answers([refusal(CAP), refusal("too many requests")])
    (key,) = rig.submit("any", "a")
    rig.step(15)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert [attempt.purpose for attempt in record.attempts] == [Purpose.CALL]
    rig.chain.lies.clear()
    rig.step(2)
    assert rig.state(key) is IntentState.MINED


@pytest.mark.parametrize(
    ("one", "another", "kind"),
    [
        ("429 too many requests", "already known", Kind.KNOWN),
        ("nonce too low", "already known", Kind.KNOWN),
        ("the node is syncing", "nonce too low", Kind.NONCE_TOO_LOW),
        ("transaction underpriced", "nonce too low", Kind.NONCE_TOO_LOW),
        ("transaction underpriced", "insufficient funds", Kind.INSUFFICIENT_FUNDS),
        ("429 too many requests", "transaction underpriced", Kind.UNDERPRICED),
        ("invalid sender", "replacement transaction underpriced", Kind.REPLACEMENT_UNDERPRICED),
        ("invalid sender", "txpool is full", Kind.POOL_FULL),
        ("429 too many requests", "intrinsic gas too low", Kind.FATAL),
        ("429 too many requests", "the hamster is asleep", Kind.UNKNOWN),
        (CAP, "the hamster is asleep", Kind.UNKNOWN),
        (CAP, "429 too many requests", Kind.BUSY),
    ],
)
def test_which_of_two_refusals_decides_whoever_says_it(one: str, another: str, kind: Kind) -> None:
    for first, second in ((one, another), (another, one)):
        joined = _join_answers([refusal(first), refusal(second)])
        assert isinstance(joined, RpcError)
        assert deciding(joined)[0] is kind


def test_of_equal_refusals_the_present_nodes_words_are_told() -> None:
    joined = _join_answers([refusal("too many requests, says a"), refusal("too many requests, says b")])
    assert isinstance(joined, RpcError)
    assert deciding(joined)[1].message == "too many requests, says a"


def test_an_operators_words_decide_as_well() -> None:
    joined = _join_answers([refusal("too many requests"), refusal("full moon")])
    assert isinstance(joined, RpcError)
    assert deciding(joined, (("full moon", Kind.KNOWN),))[0] is Kind.KNOWN


def test_every_kind_has_one_rank() -> None:
    assert sorted(RANKS) == sorted(Kind)


def test_a_lane_whose_nodes_are_all_on_another_chain_says_so_and_goes_on_once_one_is_not() -> None:
    def elsewhere(_: list[Any]) -> NoReturn:
        raise NodesOfOtherChain(why="none of a or b is on chain 5", fix="Set SLUICE_RPC_URL to nodes of that chain.")

    rig = Rig(LanePolicy(silent_after=20.0))
    (key,) = rig.submit("any", "a")
    rig.chain.lies["eth_getTransactionCount"] = elsewhere
    rig.step(30)
    assert "none of a or b is on chain 5" in (rig.store.waiting(rig.id) or "")
    rig.chain.lies.clear()
    rig.step(3)
    assert rig.state(key) is IntentState.MINED
    assert rig.store.waiting(rig.id) is None
