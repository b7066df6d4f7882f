"""Transactions that stand still: dropped, too cheap, refused, or behind a gap."""

from __future__ import annotations

from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import Purpose
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.fees import GWEI, FeePolicy
from chain.lane.rules.send_errors import Kind
from protocol.types import Nonce, Wei
from tests.unit.chain.lane.rig import Rig


def test_a_dropped_transaction_is_sent_again_with_the_same_bytes() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.step(3)
    assert rig.state(key) is IntentState.MINED
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert len(record.attempts) == 1


def test_a_transaction_whose_acceptance_was_lost_is_not_sent_twice() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.chain.lose_answers = 1
    rig.step(2)
    assert rig.state(key) is IntentState.MINED
    assert rig.chain.executed() == {"a": 1}


def test_a_base_fee_above_the_cap_bumps_the_fee_of_the_lowest_nonce() -> None:
    rig = Rig()
    rig.submit("any", "a", "b")
    rig.run()
    rig.chain.base_fee = 50 * GWEI
    rig.chain.drop()
    rig.step(3)
    lowest = rig.store.record(rig.id, Nonce(0))
    assert lowest is not None
    assert len(lowest.attempts) == 2
    assert lowest.attempts[1].fees.max_fee * 10 >= lowest.attempts[0].fees.max_fee * 11
    assert lowest.attempts[1].fees.tip * 10 >= lowest.attempts[0].fees.tip * 11
    rig.step(4)
    assert rig.chain.executed() == {"a": 1, "b": 1}


def test_the_fee_ceiling_is_never_passed() -> None:
    rig = Rig(LanePolicy(fees=FeePolicy(ceiling=Wei(5 * GWEI))))
    rig.submit("any", "a")
    rig.run()
    rig.chain.base_fee = 50 * GWEI
    rig.chain.drop()
    rig.step(10)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert max(attempt.fees.max_fee for attempt in record.attempts) <= 5 * GWEI
    rig.chain.base_fee = GWEI
    rig.step(4)
    assert rig.chain.executed() == {"a": 1}


def test_bytes_that_no_node_takes_give_way_and_the_intent_fails_with_the_nodes_words() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.chain.refuses["bad"] = "intrinsic gas too low"
    bad, good = rig.submit("any", "bad", "good")
    rig.step(15)
    assert rig.state(bad) is IntentState.FAILED
    assert "intrinsic gas too low" in rig.reason(bad)
    assert rig.state(good) is IntentState.FINAL


def test_a_gap_is_filled_at_its_exact_nonce_after_two_looks() -> None:
    rig = Rig()
    rig.submit("any", "a", "b", "c")
    rig.run()
    # What a database restored from an older copy looks like.
    del rig.store._records[rig.id][Nonce(1)]
    rig.chain.drop(1)
    rig.run()
    assert rig.store.record(rig.id, Nonce(1)) is None
    rig.step(2)
    filler = rig.store.record(rig.id, Nonce(1))
    assert filler is not None
    assert filler.newest.purpose is Purpose.YIELD
    rig.step(3)
    assert rig.chain.count() >= 3


def test_the_meaning_of_a_nodes_unknown_words_can_be_set() -> None:
    rig = Rig(LanePolicy(phrases=(("full moon", Kind.FATAL),)))
    rig.chain.refuses["a"] = "Full Moon!"
    (key,) = rig.submit("any", "a")
    rig.step()
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert record.newest.purpose is Purpose.YIELD
    assert rig.state(key) is IntentState.SENT


def test_what_is_not_mined_for_no_reason_is_replaced_at_first_soon_and_then_ever_later() -> None:
    rig = Rig(LanePolicy(fees=FeePolicy(name="fixed", fixed=Wei(10 * GWEI))))
    rig.submit("any", "a")
    rig.run()
    # Blocks come and have room, the price is right, the node has the bytes.
    rig.chain.per_block = 0
    attempts = []
    for _ in range(20):
        rig.step()
        record = rig.store.record(rig.id, Nonce(0))
        assert record is not None
        attempts.append(len(record.attempts))
    assert [attempts.count(times) for times in (1, 2, 3)] == [5, 12, 3]
    rig.chain.per_block = 8
    rig.step()
    assert rig.chain.executed() == {"a": 1}


def test_patience_begins_with_the_first_transaction_after_a_quiet_time() -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.step(20)
    rig.chain.per_block = 0
    rig.submit("any", "b")
    rig.step(rig.policy.bump_after - 1)
    record = rig.store.record(rig.id, Nonce(1))
    assert record is not None
    assert len(record.attempts) == 1
