"""Transactions that stand still: dropped, too cheap, refused, or behind a gap."""

from __future__ import annotations

from structlog.testing import capture_logs

from chain.lane import admin
from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import NonceState, Purpose
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


def test_a_transaction_that_no_node_takes_is_replaced_by_a_noop_and_the_intent_fails_with_the_nodes_words() -> None:
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


def test_the_timeout_begins_with_the_first_transaction_after_a_quiet_time() -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.step(20)
    rig.chain.per_block = 0
    rig.submit("any", "b")
    rig.step(rig.policy.bump_after - 1)
    record = rig.store.record(rig.id, Nonce(1))
    assert record is not None
    assert len(record.attempts) == 1


def _attempts(rig: Rig) -> int:
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    return len(record.attempts)


def test_a_price_does_not_climb_before_a_node_has_seen_the_last_one() -> None:
    rig = Rig()
    rig.chain.refuses["a"] = "transaction underpriced"
    (key,) = rig.submit("any", "a")
    rig.step()
    rig.chain.fog["eth_sendRawTransaction"] = "cut"
    rig.step()
    before = _attempts(rig)
    rig.step(15)
    assert _attempts(rig) == before
    rig.chain.fog.clear()
    rig.chain.refuses.clear()
    # The newest goes out first, at the price it has.
    rig.step()
    assert _attempts(rig) == before
    assert rig.state(key) is IntentState.MINED


def test_a_price_does_not_climb_in_one_process_for_what_another_has_sent_meanwhile() -> None:
    rig = Rig()
    rig.chain.refuses["a"] = "transaction underpriced"
    rig.submit("any", "a")
    rig.run()
    # Another process raises the price, and a node takes it; no block does.
    rig.chain.per_block = 0
    other = rig.new_lane()
    rig.chain.mine()
    other.run()
    rig.chain.refuses.clear()
    rig.chain.mine()
    other.run()
    assert _attempts(rig) == 2
    (later,) = rig.submit("any", "b")
    rig.chain.mine()
    rig.lane.run()
    assert _attempts(rig) == 2
    # What that process was told of an older attempt holds nothing back.
    assert rig.state(later) is IntentState.SENT


def test_a_price_does_not_climb_in_one_process_for_bytes_that_a_node_has_taken_from_another() -> None:
    rig = Rig()
    rig.chain.refuses["a"] = "txpool is full"
    rig.submit("any", "a")
    rig.lane.run()
    rig.chain.refuses.clear()
    rig.chain.per_block = 0
    rig.chain.mine()
    rig.new_lane().run()
    (later,) = rig.submit("any", "b")
    rig.lane.run()
    assert rig.state(later) is IntentState.SENT
    assert _attempts(rig) == 1


def _foreign_filler() -> tuple[Rig, str]:
    """A lane that fills the nonce of a foreign transaction, because its node is behind for two blocks."""
    rig = Rig()
    rig.submit("any", "a")
    rig.step(2)
    rig.chain.foreign()
    (key,) = rig.submit("any", "b")
    rig.step()
    rig.chain.lag = 4
    rig.step(3)
    rig.chain.lag = 0
    filler = rig.store.record(rig.id, Nonce(1))
    assert filler is not None
    assert not filler.intents
    return rig, key


def test_a_gap_filler_whose_nonce_a_foreign_transaction_took_halts_nothing() -> None:
    rig, key = _foreign_filler()
    with capture_logs() as lines:
        for _ in range(20):
            assert rig.step().halted is None
    assert [line["log_level"] for line in lines if line["action"] == "lane_foreign_filler"] == ["warning"]
    filler = rig.store.record(rig.id, Nonce(1))
    assert filler is not None
    assert filler.state is NonceState.FOREIGN
    (late,) = rig.submit("any", "c")
    rig.step(2)
    assert rig.state(key) is IntentState.FINAL
    assert rig.state(late) is IntentState.MINED
    assert rig.store.waiting(rig.id) is None


def test_a_gap_filler_is_not_let_go_before_the_foreign_block_is_final() -> None:
    rig, _ = _foreign_filler()
    rig.step(2)
    filler = rig.store.record(rig.id, Nonce(1))
    assert filler is not None
    assert filler.state is NonceState.OPEN


def test_a_nonce_that_was_disowned_halts_nothing_again_after_its_node_was_behind() -> None:
    rig = Rig(LanePolicy(finality=3))
    rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.foreign()
    assert rig.step(4).halted is not None
    admin.disown(rig.lane, Nonce(0))
    rig.chain.lag = len(rig.chain.blocks) - 1
    rig.run()
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert record.state is NonceState.OPEN
    rig.chain.lag = 0
    for _ in range(8):
        assert rig.step().halted is None
    assert rig.chain.executed() == {"a": 1}
