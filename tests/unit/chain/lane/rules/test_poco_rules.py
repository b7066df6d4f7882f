"""What PoCo allows, one row a rule. Deadlines: contribution 70, reveal 80, final 100."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode
from structlog.testing import capture_logs

from chain.contracts import calls
from chain.lane.model.intent import Intent
from chain.lane.rules.poco import PocoReadiness, judge
from chain.lane.rules.poco_facts import TaskFacts, facts
from chain.lane.rules.readiness import READY, Judgement, Moment
from chain.rpc.client import Request
from chain.testing import FakeChain
from protocol.errors import BadMessage, RpcError
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.poco.view import ContributionStatus, TaskStatus
from protocol.types import BlockNumber, Contract, Hash32, Timestamp, Wallet

WALLET = Wallet("0x" + "ab" * 20)
TASK = "0x" + "77" * 32
OURS, THEIRS = Hash32("0x" + "01" * 32), Hash32("0x" + "02" * 32)
BASE = TaskFacts(
    TaskStatus.UNSET,
    contribution_deadline=Timestamp(70),
    reveal_deadline=Timestamp(80),
    final_deadline=Timestamp(100),
    vote_hash=OURS,
)
UNSET = BASE
ACTIVE = replace(BASE, status=TaskStatus.ACTIVE)
REVEALING = replace(BASE, status=TaskStatus.REVEALING, consensus=OURS, winners=2, vote=ContributionStatus.CONTRIBUTED)
COMPLETED = replace(BASE, status=TaskStatus.COMPLETED)
FAILED = replace(BASE, status=TaskStatus.FAILED)
VOTED = replace(ACTIVE, vote=ContributionStatus.CONTRIBUTED)
REJECTED = replace(ACTIVE, vote=ContributionStatus.REJECTED)


def intent(method: str, **args: object) -> Intent:
    return Intent.new(1, WALLET, method, TASK, args, 0.0)


@pytest.mark.parametrize(
    ("method", "task", "now", "judgement"),
    [
        ("initialize", UNSET, 1, Judgement.READY),
        ("initialize", replace(UNSET, deal=False), 1, Judgement.WAIT),
        ("initialize", ACTIVE, 1, Judgement.DONE),
        ("initialize", COMPLETED, 1, Judgement.DONE),
        ("contribute", UNSET, 1, Judgement.WAIT),
        ("contribute", ACTIVE, 69, Judgement.READY),
        ("contribute", ACTIVE, 70, Judgement.DEAD),
        ("contribute", VOTED, 1, Judgement.DONE),
        ("contribute", REJECTED, 1, Judgement.DEAD),
        ("contribute", replace(REVEALING, vote=ContributionStatus.UNSET), 1, Judgement.DEAD),
        ("contributeAndFinalize", UNSET, 1, Judgement.WAIT),
        ("contributeAndFinalize", ACTIVE, 1, Judgement.READY),
        ("contributeAndFinalize", replace(ACTIVE, contributors=1), 1, Judgement.DEAD),
        ("contributeAndFinalize", replace(COMPLETED, vote=ContributionStatus.REVEALED), 1, Judgement.DONE),
        ("reveal", VOTED, 1, Judgement.WAIT),
        ("reveal", REVEALING, 79, Judgement.READY),
        ("reveal", REVEALING, 80, Judgement.DEAD),
        ("reveal", replace(REVEALING, consensus=THEIRS), 1, Judgement.DEAD),
        ("reveal", replace(REVEALING, vote=ContributionStatus.REVEALED), 1, Judgement.DONE),
        ("reveal", COMPLETED, 1, Judgement.DEAD),
        ("finalize", ACTIVE, 1, Judgement.WAIT),
        ("finalize", replace(REVEALING, revealed=1), 79, Judgement.WAIT),
        ("finalize", replace(REVEALING, revealed=2), 1, Judgement.READY),
        ("finalize", replace(REVEALING, revealed=1), 80, Judgement.READY),
        ("finalize", replace(REVEALING, revealed=0), 80, Judgement.WAIT),
        ("finalize", replace(REVEALING, revealed=2), 100, Judgement.DEAD),
        ("finalize", COMPLETED, 1, Judgement.DONE),
        ("finalize", FAILED, 1, Judgement.DEAD),
        ("reopen", REVEALING, 79, Judgement.WAIT),
        ("reopen", REVEALING, 80, Judgement.READY),
        ("reopen", replace(REVEALING, revealed=1), 80, Judgement.DEAD),
        ("reopen", ACTIVE, 1, Judgement.DONE),
        ("claim", UNSET, 200, Judgement.WAIT),
        ("reopen", UNSET, 90, Judgement.WAIT),
        ("claim", ACTIVE, 99, Judgement.WAIT),
        ("claim", ACTIVE, 100, Judgement.READY),
        ("claim", REVEALING, 100, Judgement.READY),
        ("claim", FAILED, 1, Judgement.DONE),
        ("claim", COMPLETED, 200, Judgement.DEAD),
        ("call", UNSET, 1, Judgement.READY),
    ],
)
def test_rule(method: str, task: TaskFacts, now: int, judgement: Judgement) -> None:
    verdict = judge(intent(method), task, Timestamp(now))
    assert verdict.judgement is judgement
    assert bool(verdict.reason) == (judgement is not Judgement.READY)


@pytest.mark.parametrize("method", ["contribute", "contributeAndFinalize", "reveal", "finalize", "reopen", "claim"])
@pytest.mark.parametrize("now", [1, 75, 90, 200])
def test_a_node_that_is_behind_or_a_reorg_ends_no_step_of_a_task_that_was_initialized(method: str, now: int) -> None:
    # The contract knows no deadline of a task that it has not seen.
    none = Timestamp(0)
    seen = replace(UNSET, contribution_deadline=none, reveal_deadline=none, final_deadline=none)
    assert judge(intent(method), seen, Timestamp(now)).judgement is Judgement.WAIT


def test_a_deadline_that_passed_is_explained_in_seconds() -> None:
    assert judge(intent("contribute"), ACTIVE, Timestamp(82)).reason == "contribution deadline passed 12 s before"
    late = judge(intent("initialize", deadline=70), UNSET, Timestamp(75))
    assert late.reason == "contribution deadline passed 5 s before"


def task_answer(contributors: list[str]) -> str:
    values = (2, b"\x01" * 32, 3, 10, 70, 80, 100, to_bytes(OURS), 1, 2, contributors, b"\x05" * 32, b"res", 0, b"cb")
    return to_hex(encode(list(calls.VIEW_TASK.outputs), [values]))


def vote_answer() -> str:
    return to_hex(
        encode(list(calls.VIEW_CONTRIBUTION.outputs), [(1, to_bytes(OURS), b"\x03" * 32, "0x" + "0" * 40, 4)])
    )


@pytest.mark.parametrize("contributors", [[], ["0x" + "01" * 20], ["0x" + "01" * 20, "0x" + "02" * 20]])
def test_views_are_read_as_the_abi_says(contributors: list[str]) -> None:
    assert facts(task_answer(contributors), vote_answer()) == TaskFacts(
        TaskStatus.REVEALING,
        contribution_deadline=Timestamp(70),
        reveal_deadline=Timestamp(80),
        final_deadline=Timestamp(100),
        consensus=OURS,
        revealed=1,
        winners=2,
        contributors=len(contributors),
        vote=ContributionStatus.CONTRIBUTED,
        vote_hash=OURS,
    )


@pytest.mark.parametrize("answer", ["0x", None, {}, 7])
def test_an_answer_that_is_too_short_or_no_bytes_is_no_answer(answer: object) -> None:
    with pytest.raises(BadMessage):
        facts(answer)


class Silent(FakeChain):
    """Answers every view alike: with an error, or with what tells nothing."""

    def __init__(self, hub: Contract, answer: object = None) -> None:
        super().__init__(hub)
        self._said = answer or RpcError(method="eth_call", code=-32000, message="header not found")

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        return [self._said for _ in requests]


NO_ANSWERS = (
    RpcError(method="eth_call", code=-32000, message="header not found"),
    RpcError(method="eth_call", code=-32005, message="429 Too Many Requests"),
    "0x",
    {"unexpected": 1},
)


@pytest.mark.parametrize("answer", NO_ANSWERS, ids=str)
@pytest.mark.parametrize("method", ["initialize", "contribute", "contributeAndFinalize", "finalize", "reopen", "claim"])
def test_what_the_node_cannot_tell_is_not_sent(method: str, answer: object) -> None:
    hub = Contract("0x" + "11" * 20)
    (verdict,) = PocoReadiness(Silent(hub, answer), hub).check([intent(method)], Moment(BlockNumber(1), Timestamp(1)))
    assert (verdict.judgement, verdict.unanswered) == (Judgement.WAIT, True)


@pytest.mark.parametrize("answer", NO_ANSWERS, ids=str)
def test_only_a_reveal_and_what_has_no_precondition_go_unasked(answer: object) -> None:
    hub = Contract("0x" + "11" * 20)
    readiness = PocoReadiness(Silent(hub, answer), hub)
    verdicts = readiness.check([intent("reveal"), intent("call")], Moment(BlockNumber(1), Timestamp(1)))
    assert verdicts == [READY, READY]


def test_a_reveal_that_has_reverted_is_not_sent_blindly_again() -> None:
    hub = Contract("0x" + "11" * 20)
    (verdict,) = PocoReadiness(Silent(hub), hub).check(
        [replace(intent("reveal"), generation=1)], Moment(BlockNumber(1), Timestamp(1))
    )
    assert (verdict.judgement, verdict.unanswered) == (Judgement.WAIT, True)


def test_a_node_that_cannot_tell_is_complained_of_once_and_not_for_every_intent() -> None:
    hub = Contract("0x" + "11" * 20)
    readiness = PocoReadiness(Silent(hub), hub)
    with capture_logs() as logs:
        for _ in range(2):
            readiness.check([intent("initialize"), intent("finalize")], Moment(BlockNumber(1), Timestamp(1)))
    assert [entry["action"] for entry in logs] == ["lane_unanswered"]


def test_an_intent_of_a_later_release_waits_for_a_process_that_knows_it() -> None:
    later = intent("contributeTwice")
    readiness = PocoReadiness(Silent(Contract("0x" + "11" * 20)), Contract("0x" + "11" * 20))
    (verdict,) = readiness.check([later], Moment(BlockNumber(1), Timestamp(1)))
    assert verdict == judge(later, ACTIVE, Timestamp(1))
    assert (verdict.judgement, "contributeTwice" in verdict.reason) == (Judgement.WAIT, True)


def test_below_the_head_what_the_node_cannot_answer_waits() -> None:
    hub = Contract("0x" + "11" * 20)
    readiness = PocoReadiness(Silent(hub), hub, strict=True)
    reveal, call = readiness.check([intent("reveal"), intent("call")], Moment(BlockNumber(1), Timestamp(1)))
    assert reveal.judgement is Judgement.WAIT
    assert "header not found" in reveal.reason
    assert call == READY


class Null(FakeChain):
    """Answers every view with null."""

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        return [None for _ in requests]


def test_null_in_place_of_a_view_is_no_word_about_it() -> None:
    hub = Contract("0x" + "11" * 20)
    (reveal,) = PocoReadiness(Null(hub), hub, strict=True).check(
        [intent("reveal")], Moment(BlockNumber(1), Timestamp(1))
    )
    assert reveal.judgement is Judgement.WAIT


@pytest.mark.parametrize("method", ["contribute", "contributeAndFinalize", "reveal"])
def test_null_in_place_of_an_own_vote_is_not_the_word_that_there_is_none(method: str) -> None:
    class Hub(FakeChain):
        def batch(self, requests: Sequence[Request]) -> list[Any]:
            views = [str(params[0]["data"]) for _, params in requests]  # type: ignore[index]
            return [task_answer([WALLET]) if view == calls.VIEW_TASK.encode(TASK) else None for view in views]

    hub = Contract("0x" + "11" * 20)
    (verdict,) = PocoReadiness(Hub(hub), hub).check([intent(method)], Moment(BlockNumber(1), Timestamp(1)))
    assert (verdict == READY) if method == "reveal" else verdict.unanswered


@pytest.mark.parametrize(
    ("named", "judgement"), [(OURS, Judgement.READY), (THEIRS, Judgement.DEAD), (None, Judgement.READY)]
)
def test_a_finalize_that_names_its_consensus_is_not_sent_for_another(
    named: Hash32 | None, judgement: Judgement
) -> None:
    """It was handed over when the reveals were sent, and then the task was reopened."""
    agreed = replace(REVEALING, revealed=2)
    args = {"results": "0x"} | ({"consensus": named} if named else {})
    assert judge(intent("finalize", **args), agreed, Timestamp(1)).judgement is judgement
    reopened = replace(ACTIVE, consensus=None)
    assert judge(intent("finalize", **args), reopened, Timestamp(1)).judgement is Judgement.WAIT


def test_the_pending_state_is_asked_by_its_name_and_a_node_that_cannot_tell_it_sends_nothing_early() -> None:
    class Asked(FakeChain):
        def batch(self, requests: Sequence[Request]) -> list[Any]:
            tags.extend(str(params[1]) for _, params in requests)
            return [
                RpcError(method=method, code=-32000, message="pending state is not available") for method, _ in requests
            ]

    tags: list[str] = []
    ahead = PocoReadiness(Asked(Contract(WALLET)), Contract(WALLET), pending=True)
    (verdict,) = ahead.check([intent("contribute")], Moment(BlockNumber(9), Timestamp(1)))
    assert set(tags) == {"pending"}
    assert verdict.judgement is Judgement.WAIT


@pytest.mark.parametrize(("contributors", "asked"), [([], 1), (["0x" + "cd" * 20], 1), ([WALLET], 2)])
@pytest.mark.parametrize("method", ["contribute", "contributeAndFinalize", "reveal"])
def test_an_own_vote_is_asked_for_only_where_the_task_names_the_wallet(
    method: str, contributors: list[str], asked: int
) -> None:
    class Hub(FakeChain):
        def batch(self, requests: Sequence[Request]) -> list[Any]:
            sent.extend(requests)
            views = [str(params[0]["data"]) for _, params in requests]  # type: ignore[index]
            return [
                task_answer(contributors) if view == calls.VIEW_TASK.encode(TASK) else vote_answer() for view in views
            ]

    sent: list[Request] = []
    hub = Contract("0x" + "11" * 20)
    (verdict,) = PocoReadiness(Hub(hub), hub).check([intent(method)], Moment(BlockNumber(1), Timestamp(1)))
    assert len(sent) == asked
    voted = asked == 2
    both = facts(task_answer(contributors), vote_answer() if voted else "0x" + "0" * 320)
    assert verdict == judge(intent(method), both, Timestamp(1))
