from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from chain.lane import operate
from chain.lane.classify import Kind
from chain.lane.fees import GWEI, FeePolicy
from chain.lane.intent import IntentState
from chain.lane.nonce import NonceState, Purpose
from chain.lane.policy import LanePolicy
from protocol.errors import BadInput, LaneFull
from protocol.types import Nonce, Wei
from tests.unit.chain.lane.rig import Rig


def test_an_intent_is_mined_in_the_next_block_and_final_at_depth() -> None:
    rig = Rig(LanePolicy(finality=3))
    (key,) = rig.submit("any", "a")
    rig.step()
    assert rig.state(key) is IntentState.MINED
    ended = rig.step(3).ended
    assert rig.state(key) is IntentState.FINAL
    assert [intent.key for intent in ended] == [key]


def test_the_same_intent_submitted_again_changes_nothing() -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.step()
    rig.submit("any", "a")
    rig.step(2)
    assert rig.chain.executed() == {"a": 1}


def test_an_idle_run_asks_the_node_nothing() -> None:
    rig = Rig()
    rig.chain.asked.clear()
    rig.run()
    assert not rig.chain.asked


def test_a_run_with_nothing_ready_costs_one_batch_of_reads() -> None:
    rig = Rig()
    rig.chain.blocked.add("a")
    rig.submit("any", "a")
    rig.chain.asked.clear()
    rig.run()
    assert rig.chain.asked.total() == 4


def test_an_intent_that_must_wait_does_not_hold_up_the_others() -> None:
    rig = Rig()
    rig.chain.blocked.add("a")
    waiting, going = rig.submit("any", "a", "b")
    rig.step()
    assert (rig.state(waiting), rig.state(going)) == (IntentState.QUEUED, IntentState.MINED)
    rig.chain.blocked.clear()
    rig.step()
    assert rig.state(waiting) is IntentState.MINED


def test_many_that_wait_do_not_hide_one_that_is_ready() -> None:
    rig = Rig(LanePolicy(window=64))
    waiting = [f"w{number}" for number in range(200)]
    rig.chain.blocked.update(waiting)
    rig.submit("any", *waiting)
    (key,) = rig.submit("any", "b")
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_what_is_already_done_on_chain_is_done_without_a_nonce() -> None:
    rig = Rig()
    rig.chain.done_by_others.add("a")
    (key,) = rig.submit("once", "a")
    rig.step()
    assert rig.state(key) is IntentState.DONE
    assert rig.store.highest_nonce(rig.id) is None


def test_an_intent_found_done_can_be_asked_for_again_when_the_chain_forgot_it() -> None:
    rig = Rig()
    rig.chain.done_by_others.add("a")
    (key,) = rig.submit("once", "a")
    rig.step()
    rig.chain.done_by_others.clear()
    rig.submit("once", "a")
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_intents_of_one_array_share_a_nonce() -> None:
    rig = Rig()
    rig.submit("once", "a", "b", "c")
    rig.step()
    assert rig.chain.count() == 1
    assert rig.chain.executed() == {"a": 1, "b": 1, "c": 1}


def test_an_array_that_reverts_because_of_one_goes_again_one_by_one() -> None:
    rig = Rig()
    keys = rig.submit("once", "a", "b", "c")
    rig.run()
    rig.chain.done_by_others.add("b")
    rig.step(3)
    assert [rig.state(key) for key in keys] == [IntentState.MINED, IntentState.DONE, IntentState.MINED]


def test_no_more_nonces_are_open_than_allowed() -> None:
    rig = Rig(LanePolicy(max_in_flight=4))
    rig.submit("any", *"abcdefgh")
    rig.run()
    assert len(rig.store.records(rig.id, [NonceState.OPEN])) == 4
    rig.step(2)
    assert rig.chain.executed().total() == 8


def test_a_full_queue_refuses_more() -> None:
    rig = Rig(LanePolicy(max_queued=2))
    rig.submit("any", "a", "b")
    with pytest.raises(LaneFull):
        rig.submit("any", "c")


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


def test_a_base_fee_above_the_cap_makes_the_lowest_nonce_dearer() -> None:
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


def test_a_reorg_puts_an_intent_back_and_the_same_bytes_go_out_again() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.step()
    rig.chain.reorg(1, keep=False)
    rig.run()
    assert rig.state(key) is IntentState.SENT
    rig.step()
    assert rig.state(key) is IntentState.MINED
    assert len(rig.chain.seen) == 1


def test_a_reorg_that_mines_it_elsewhere_is_followed() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.step()
    rig.chain.reorg(1, keep=True)
    rig.chain.mine()
    rig.run()
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert record.mined is not None
    assert record.mined.block_hash == rig.chain.blocks[record.mined.block].hash
    assert rig.state(key) is IntentState.MINED


def test_a_reorg_below_finality_reopens_final_nonces() -> None:
    rig = Rig(LanePolicy(finality=2))
    (key,) = rig.submit("any", "a")
    rig.step(5)
    assert rig.state(key) is IntentState.FINAL
    rig.submit("any", "b")
    rig.chain.reorg(6, keep=False)
    rig.step(2)
    assert rig.chain.executed() == {"a": 1, "b": 1}


def test_a_foreign_nonce_stops_the_lane_until_an_operator_decides() -> None:
    rig = Rig(LanePolicy(finality=3))
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.foreign()
    report = rig.step(4)
    assert report.halted is not None
    assert "Nonce 0" in report.halted
    (late,) = rig.submit("any", "b")
    rig.step(2)
    assert rig.state(late) is IntentState.QUEUED
    operate.disown(rig.lane, Nonce(0))
    rig.step(2)
    assert rig.state(key) is IntentState.MINED
    assert rig.chain.executed() == {"a": 1, "b": 1}


def test_only_a_spent_nonce_can_be_disowned() -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.run()
    with pytest.raises(BadInput, match="not spent"):
        operate.disown(rig.lane, Nonce(0))


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


def test_an_empty_wallet_claims_no_nonce() -> None:
    rig = Rig()
    rig.chain.balance = 1000
    (key,) = rig.submit("any", "a")
    rig.step(2)
    assert rig.state(key) is IntentState.QUEUED
    assert rig.store.highest_nonce(rig.id) is None
    rig.chain.balance = 10**20
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_the_daily_cap_holds_what_would_exceed_it() -> None:
    rig = Rig(LanePolicy(daily_cap=Wei(50_000 * 4 * GWEI)))
    rig.submit("any", *"abcdef")
    rig.step(3)
    assert 0 < rig.chain.executed().total() < 6


def test_a_dry_run_says_once_what_it_would_send_and_sends_nothing() -> None:
    rig = Rig(LanePolicy(dry_run=True))
    (key,) = rig.submit("any", "a")
    with capture_logs() as lines:
        rig.step(2)
    assert [line["intents"] for line in lines if line["action"] == "lane_dry_run"] == [[key]]
    assert rig.state(key) is IntentState.QUEUED
    assert not rig.chain.seen


def test_a_dry_run_leaves_what_was_sent_before_it_alone() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.policy = LanePolicy(dry_run=True)
    rig.lane = rig.new_lane()
    sent = rig.chain.asked["eth_sendRawTransaction"]
    rig.step(5)
    assert rig.chain.asked["eth_sendRawTransaction"] == sent
    assert rig.state(key) is IntentState.SENT


def test_what_a_nodes_strange_words_mean_can_be_told() -> None:
    rig = Rig(LanePolicy(phrases=(("full moon", Kind.FATAL),)))
    rig.chain.refuses["a"] = "Full Moon!"
    (key,) = rig.submit("any", "a")
    rig.step()
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert record.newest.purpose is Purpose.YIELD
    assert rig.state(key) is IntentState.SENT


def test_money_to_keep_is_not_spent() -> None:
    rig = Rig(LanePolicy(keep_balance=Wei(10**24)))
    (key,) = rig.submit("any", "a")
    rig.step(2)
    assert rig.state(key) is IntentState.QUEUED
    rig.chain.balance *= 2
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_while_one_lane_runs_the_other_waits() -> None:
    rig = Rig()
    rig.submit("any", "a")
    lease = rig.store.take_lease(rig.id, "elsewhere", 5.0)
    assert lease is not None
    assert rig.run().busy
    rig.clock.now += 6
    assert not rig.run().busy


def test_an_operators_cancel_spends_the_nonce_and_fails_the_intent() -> None:
    rig = Rig(LanePolicy(finality=2))
    key, other = rig.submit("any", "a", "b")
    rig.chain.per_block = 0
    rig.run()
    operate.cancel(rig.lane, Nonce(0))
    rig.chain.per_block = 8
    rig.step(4)
    assert rig.state(key) is IntentState.FAILED
    assert rig.state(other) is IntentState.FINAL
    assert rig.chain.executed() == {"b": 1}


def test_a_node_that_does_not_answer_is_reported_and_survived() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.chain.frozen = True
    assert rig.run().trouble is not None
    rig.chain.frozen = False
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_a_reorg_deeper_than_finality_is_noticed_by_an_idle_lane_said_and_repaired() -> None:
    rig = Rig(LanePolicy(finality=2))
    keys = rig.submit("any", "a", "b")
    rig.step(5)
    assert {rig.state(key) for key in keys} == {IntentState.FINAL}
    assert not rig.store.busy(rig.id)
    rig.chain.reorg(5, keep=False)
    rig.chain.mine()
    with capture_logs() as lines:
        rig.step()
    (said,) = [line for line in lines if line["action"] == "lane_final_undone"]
    assert (said["log_level"], said["nonces"], said["finality"]) == ("error", [0, 1], 2)
    assert {rig.state(key) for key in keys} == {IntentState.MINED}
    rig.step(3)
    assert {rig.state(key) for key in keys} == {IntentState.FINAL}
    assert rig.chain.executed() == {"a": 1, "b": 1}


def test_a_final_call_that_reverts_on_the_new_chain_is_judged_again() -> None:
    rig = Rig(LanePolicy(finality=2))
    first, second = rig.submit("once", "a")[0], rig.submit("any", "b")[0]
    rig.step(5)
    assert rig.state(first) is IntentState.FINAL
    rig.chain.done_by_others.add("a")
    rig.chain.reorg(5, keep=True)
    rig.chain.mine()
    rig.step(2)
    assert rig.state(first) is IntentState.DONE
    assert rig.state(second) is IntentState.FINAL
    assert rig.chain.executed()["b"] == 1


def test_below_a_final_block_that_stands_nothing_is_asked_again() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.submit("any", *(f"old{number}" for number in range(70)))
    rig.step(20)
    rig.submit("any", "new")
    rig.step(4)
    rig.chain.asked.clear()
    rig.chain.reorg(4, keep=True)
    rig.chain.mine()
    rig.run()
    assert rig.chain.asked["eth_getTransactionReceipt"] == 1


def test_what_left_a_nonce_is_not_sent_again_when_a_reorg_opens_it() -> None:
    rig = Rig(LanePolicy(finality=4))
    (key,) = rig.submit("once", "a")
    rig.run()
    rig.chain.done_by_others.add("a")
    rig.step()
    assert rig.state(key) is IntentState.DONE
    rig.chain.done_by_others.clear()
    rig.chain.reorg(2, keep=False)
    rig.step(2)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert record.newest.purpose is Purpose.YIELD
    assert record.state is NonceState.MINED
    assert rig.chain.executed() == {}
