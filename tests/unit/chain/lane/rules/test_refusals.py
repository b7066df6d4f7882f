"""Refusals in unknown words, and alarms about what no run can repair (`r16`)."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from chain.lane import admin
from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import Purpose
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI
from protocol.errors import RpcError
from protocol.types import Nonce
from tests.unit.chain.lane.rig import Rig

STRANGE = "the hamster is asleep"
BUSY = ["429 too many requests", "the node is syncing"]


def test_r16_a_call_that_can_never_work_ends_failed_with_the_nodes_words() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.refuses["bad"] = STRANGE
    rig.chain.reverting.add("bad")
    bad, good = rig.submit("any", "bad", "good")
    rig.step(30)
    assert rig.state(bad) is IntentState.FAILED
    assert STRANGE in rig.reason(bad)
    assert rig.state(good) is IntentState.FINAL
    assert rig.chain.executed() == {"good": 1}


@pytest.mark.parametrize("words", [STRANGE, "Upfront cost exceeds account balance", "txpool is full"])
def test_r16_a_call_that_could_work_goes_on_with_an_alarm(words: str) -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.refuses["bad"] = words
    bad, good = rig.submit("any", "bad", "good")
    with capture_logs() as lines:
        rig.step(rig.policy.alarm_after + 5)
    assert rig.state(bad) is IntentState.SENT
    (alarm,) = [line for line in lines if line["action"] == "lane_waits"]
    assert (alarm["log_level"], words in alarm["why"]) == ("error", True)
    assert words in admin.status(rig.lane).why
    if words == STRANGE:
        assert "lane_refusal_looked_into" in [line["action"] for line in lines]
    rig.chain.refuses.clear()
    with capture_logs() as lines:
        rig.step(5)
    assert "lane_waits_no_more" in [line["action"] for line in lines]
    assert {rig.state(bad), rig.state(good)} == {IntentState.FINAL}
    assert rig.chain.executed() == {"bad": 1, "good": 1}


def test_r16_words_that_are_the_contracts_are_looked_into_before_anything_is_given_up() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.refuses["a"] = "execution reverted"
    (key,) = rig.submit("any", "a")
    rig.step(6)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert {attempt.purpose for attempt in record.attempts} == {Purpose.CALL}
    rig.chain.refuses.clear()
    rig.step(4)
    assert rig.state(key) is IntentState.FINAL


def test_a_higher_nonce_is_not_judged_by_what_it_finds_before_the_lower_ones_are_mined() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.per_block = 0
    rig.chain.refuses["b"] = STRANGE
    rig.chain.reverting.add("b")
    rig.submit("any", "a", "b")
    rig.step(8)
    record = rig.store.record(rig.id, Nonce(1))
    assert record is not None
    assert [attempt.purpose for attempt in record.attempts] == [Purpose.CALL]


@pytest.mark.parametrize("fog", ["null", "empty", "shape", "indexing", "busy", "behind"])
def test_what_the_node_cannot_say_about_a_refused_call_gives_nothing_up(fog: str) -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.refuses["a"] = STRANGE
    rig.chain.reverting.add("a")
    rig.chain.fog["eth_call"] = fog
    rig.submit("any", "a")
    rig.step(6)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert {attempt.purpose for attempt in record.attempts} == {Purpose.CALL}


def test_an_empty_wallet_is_reported_as_what_the_lane_waits_for() -> None:
    rig = Rig()
    rig.chain.balance = 1000
    rig.submit("any", "a")
    rig.step()
    assert "fund the wallet" in admin.status(rig.lane).why
    rig.chain.balance = 10**9 * GWEI
    rig.step()
    assert admin.status(rig.lane).waiting is None


@pytest.mark.parametrize("words", BUSY)
def test_what_a_busy_node_does_not_take_keeps_its_price_is_reported_and_goes_when_the_node_does(words: str) -> None:
    rig = Rig()
    rig.chain.refuses["a"] = words
    (key,) = rig.submit("any", "a")
    rig.step(40)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert len(record.attempts) == 1
    assert words in (rig.store.waiting(rig.id) or "")
    # Its timeout begins when a node has it.
    rig.chain.refuses.clear()
    rig.chain.per_block = 0
    rig.step(rig.policy.bump_after)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert len(record.attempts) == 1
    rig.chain.per_block = 8
    rig.step()
    assert rig.state(key) is IntentState.MINED
    assert rig.store.waiting(rig.id) is None


@pytest.mark.parametrize("words", BUSY)
def test_what_a_busy_node_does_not_take_again_keeps_its_price(words: str) -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.refuses["a"] = words
    rig.step(40)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert len(record.attempts) == 1


@pytest.mark.parametrize("words", BUSY)
def test_no_further_nonce_is_claimed_until_a_busy_node_takes_what_it_was_given(words: str) -> None:
    rig = Rig()
    rig.chain.refuses["a"] = words
    rig.submit("any", "a")
    rig.run()
    (later,) = rig.submit("any", "b")
    rig.step(3)
    assert rig.state(later) is IntentState.QUEUED
    rig.chain.refuses.clear()
    rig.step(3)
    assert rig.state(later) is IntentState.MINED
    assert rig.chain.executed() == {"a": 1, "b": 1}


@pytest.mark.parametrize("words", BUSY)
def test_an_operator_who_sends_again_is_told_that_the_node_is_busy(words: str) -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.refuses["a"] = words
    assert admin.rebroadcast(rig.lane) == [words]


def test_a_node_that_answers_null_to_what_it_is_given_is_reported() -> None:
    rig = Rig()
    rig.chain.fog["eth_sendRawTransaction"] = "null"
    (key,) = rig.submit("any", "a")
    rig.step(rig.policy.alarm_after + 1)
    assert "answered null" in (rig.store.waiting(rig.id) or "")
    rig.chain.fog.clear()
    rig.step(4)
    assert rig.state(key) is IntentState.MINED
    assert rig.store.waiting(rig.id) is None


def _limited(params: list[object]) -> RpcError:
    """Infura's answer to whatever is asked too often."""
    rate = {"rate": {"allowed_rps": 10, "backoff_seconds": 30}}
    return RpcError(method="eth_x", code=-32005, message="project ID request rate exceeded", data=rate)


def test_a_providers_rate_limit_with_data_is_not_the_contracts_revert() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.refuses["a"] = STRANGE
    for method in ("eth_estimateGas", "eth_call"):
        rig.chain.lies[method] = _limited
    (key,) = rig.submit("any", "a")
    rig.step(6)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert {attempt.purpose for attempt in record.attempts} == {Purpose.CALL}
    rig.chain.refuses.clear()
    rig.step(4)
    assert rig.state(key) is IntentState.FINAL
    assert rig.chain.executed() == {"a": 1}


def test_a_provider_that_limits_every_method_costs_no_attempt_and_is_reported() -> None:
    rig = Rig(LanePolicy(finality=2))
    (key,) = rig.submit("any", "a")
    for method in ("eth_sendRawTransaction", "eth_estimateGas", "eth_call"):
        rig.chain.lies[method] = _limited
    rig.step(rig.policy.alarm_after + 1)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert len(record.attempts) == 1
    assert "request rate exceeded" in (rig.store.waiting(rig.id) or "")
    rig.chain.lies.clear()
    rig.step(4)
    assert rig.state(key) is IntentState.FINAL


def test_what_a_node_accepted_and_the_wallet_can_pay_no_more_waits_for_gas_at_its_price() -> None:
    rig = Rig(LanePolicy(finality=2))
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.refuses["a"] = "insufficient funds for gas * price + value"
    rig.step(20)
    rig.chain.base_fee = 5 * GWEI
    rig.step(20)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert len(record.attempts) == 1
    assert "insufficient funds" in (rig.store.waiting(rig.id) or "")
    rig.chain.refuses.clear()
    rig.step(8)
    assert rig.state(key) is IntentState.FINAL


@pytest.mark.parametrize("method", ["eth_getTransactionCount", "eth_sendRawTransaction"])
def test_a_lane_whose_runs_break_off_because_no_node_answers_says_so(method: str) -> None:
    rig = Rig(LanePolicy(silent_after=20.0))
    (key,) = rig.submit("any", "a")
    rig.chain.fog[method] = "cut"
    rig.step(15)
    assert rig.store.waiting(rig.id) is None
    with capture_logs() as lines:
        rig.step(15)
    assert "without an answer" in (rig.store.waiting(rig.id) or "")
    assert [line["log_level"] for line in lines if line["action"] == "lane_waits"] == ["error"]
    rig.chain.fog.clear()
    rig.step(3)
    assert rig.state(key) is IntentState.MINED
    assert rig.store.waiting(rig.id) is None
