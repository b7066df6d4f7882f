"""Spending at depth: both the head and the block `depth` below it must say yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from eth_abi.abi import encode
from structlog.testing import capture_logs

from chain.contracts import calls
from chain.lane.model.intent import Intent
from chain.lane.rules.depth import AtDepth
from chain.lane.rules.poco import PocoReadiness
from chain.lane.rules.poco_facts import facts
from chain.lane.rules.readiness import READY, Judgement, Moment, ReadinessVerdict
from chain.rpc.client import Request
from chain.testing import FakeChain
from protocol.errors import RpcError
from protocol.ethereum.hexbytes import to_hex
from protocol.types import BlockNumber, Contract, Timestamp, Wallet

ADDRESS = "0x" + "01" * 20
NOW = Moment(BlockNumber(10), Timestamp(1000))


class Said:
    """Says the same of every intent, by subject, and remembers when it was asked what."""

    def __init__(self, **verdicts: Judgement) -> None:
        self._verdicts = verdicts
        self.asked: list[tuple[list[str], Moment]] = []

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        self.asked.append(([intent.subject for intent in intents], at))
        return [self._say(self._verdicts.get(intent.subject, Judgement.READY)) for intent in intents]

    @staticmethod
    def _say(judgement: Judgement) -> ReadinessVerdict:
        return READY if judgement is Judgement.READY else ReadinessVerdict(judgement, f"said {judgement}")


def intents(*subjects: str) -> list[Intent]:
    return [Intent.new(1, Wallet(ADDRESS), "initialize", subject) for subject in subjects]


def test_what_is_ready_at_both_blocks_is_ready_and_the_lower_one_is_asked_at_the_heads_time() -> None:
    below = Said()
    assert AtDepth(Said(), below, 3).check(intents("a"), NOW) == [READY]
    assert below.asked == [(["a"], Moment(BlockNumber(7), NOW.timestamp))]


@pytest.mark.parametrize("then", [Judgement.WAIT, Judgement.DONE, Judgement.DEAD])
def test_whatever_else_was_so_below_makes_it_wait_and_says_why(then: Judgement) -> None:
    (verdict,) = AtDepth(Said(), Said(a=then), 3).check(intents("a"), NOW)
    assert verdict.judgement is Judgement.WAIT
    assert verdict.reason == f"the reason for it is not 3 blocks deep yet: said {then}"


def test_a_lower_block_that_the_node_does_not_tell_is_no_answer() -> None:
    class Mute(Said):
        @staticmethod
        def _say(judgement: Judgement) -> ReadinessVerdict:
            return ReadinessVerdict(Judgement.WAIT, "missing trie node", unanswered=True)

    (verdict,) = AtDepth(Said(), Mute(), 3).check(intents("a"), NOW)
    assert (verdict.judgement, verdict.unanswered) == (Judgement.WAIT, True)


def test_what_the_head_says_about_all_others_stands_and_the_lower_block_is_not_asked_about_them() -> None:
    head, below = Said(a=Judgement.DONE, c=Judgement.DEAD, d=Judgement.WAIT), Said(b=Judgement.WAIT)
    verdicts = AtDepth(head, below, 3).check(intents("a", "b", "c", "d"), NOW)
    assert [verdict.judgement.value for verdict in verdicts] == ["done", "wait", "dead", "wait"]
    assert [subjects for subjects, _ in below.asked] == [["b"]]


def test_a_young_chain_is_asked_at_its_first_block() -> None:
    below = Said()
    AtDepth(Said(), below, 30).check(intents("a"), NOW)
    assert below.asked[0][1].block == 0


def test_a_lower_block_is_not_asked_when_nothing_is_ready() -> None:
    below = Said()
    AtDepth(Said(a=Judgement.WAIT), below, 3).check(intents("a"), NOW)
    assert below.asked == []


@pytest.mark.parametrize("start", [0, 1_700_000_000])
def test_a_deal_is_there_if_it_has_a_start_time(start: int) -> None:
    resource = (ADDRESS, ADDRESS, 7)
    deal: tuple[object, ...] = (
        resource,
        resource,
        resource,
        5,
        2,
        b"\x01" * 32,
        ADDRESS,
        ADDRESS,
        ADDRESS,
        "x" * 99,
        start,
        8,
        9,
        3,
        4,
        ADDRESS,
    )
    task: tuple[object, ...] = (0, b"\x01" * 32, 0, 0, 0, 0, 0, bytes(32), 0, 0, [], bytes(32), b"", 0, b"")
    answers = [
        to_hex(encode(list(view.outputs), [values]))
        for view, values in ((calls.VIEW_TASK, task), (calls.VIEW_DEAL, deal))
    ]
    assert facts(answers[0], deal=answers[1]).deal is bool(start)


def test_a_node_without_that_state_is_complained_of_once_and_not_for_every_intent() -> None:
    class Forgetful(FakeChain):
        def batch(self, requests: Sequence[Request]) -> list[Any]:
            return [RpcError(method=method, code=-32000, message="missing trie node") for method, _ in requests]

    readiness = PocoReadiness(Forgetful(Contract(ADDRESS)), Contract(ADDRESS), strict=True)
    with capture_logs() as logs:
        for _ in range(2):
            verdicts = readiness.check(intents("0x" + "0a" * 32, "0x" + "0b" * 32), NOW)
    assert {verdict.judgement for verdict in verdicts} == {Judgement.WAIT}
    assert "missing trie node" in verdicts[0].reason
    assert [entry["action"] for entry in logs] == ["lane_depth_unknown"]
