"""What a run does when nothing goes wrong: queue, readiness, bundles, caps, lease, dry run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from chain.lane.audit import audit
from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import NonceState
from chain.lane.model.policy import LanePolicy
from protocol.errors import LaneFull, RpcUnavailable
from protocol.types import Nonce
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
    assert rig.chain.asked == {"eth_getBlockByNumber": 1, "eth_getTransactionCount": 1}


def test_balance_and_price_are_asked_for_by_a_run_that_sends_and_by_no_other() -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.chain.asked.clear()
    rig.run()
    assert (rig.chain.asked["eth_getBalance"], rig.chain.asked["eth_gasPrice"]) == (1, 1)
    rig.step(3)
    assert (rig.chain.asked["eth_getBalance"], rig.chain.asked["eth_gasPrice"]) == (1, 1)


def test_heads_one_after_the_other_prove_that_a_mined_block_stands_and_a_missed_head_has_it_asked_for() -> None:
    rig = Rig(LanePolicy(finality=12))
    rig.submit("any", "a")
    rig.step()
    rig.chain.asked.clear()
    rig.step(3)
    assert rig.chain.asked == {"eth_getBlockByNumber": 4, "eth_getTransactionCount": 4}
    rig.chain.mine()
    rig.chain.mine()
    rig.run()
    assert rig.chain.asked == {"eth_getBlockByNumber": 7, "eth_getTransactionCount": 5}


def test_a_second_run_at_the_same_head_asks_the_chain_only_for_what_it_sends() -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.step()
    rig.submit("any", "b")
    rig.run()
    rig.submit("any", "c")
    rig.chain.asked.clear()
    rig.lane.run(same_head=True)
    assert rig.chain.asked == {"eth_sendRawTransaction": 1}
    rig.step()
    assert rig.chain.executed() == {"a": 1, "b": 1, "c": 1}


def test_a_block_of_ours_above_the_head_that_was_seen_has_the_chain_looked_at_anew() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.mine()
    rig.chain.lag = 1
    rig.run()
    rig.chain.lag = 0
    other = rig.new_lane()
    other.run()
    assert rig.state(key) is IntentState.MINED, "by another process, which saw the block"
    with capture_logs() as logs:
        rig.lane.run(same_head=True)
    assert rig.state(key) is IntentState.MINED
    assert not [line for line in logs if line["action"] == "lane_reorg"]


def test_a_block_of_ours_on_a_branch_that_was_not_seen_has_the_chain_looked_at_anew() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.run()
    waiting, rig.chain.pool = rig.chain.pool, {}
    rig.chain.mine()
    rig.run()
    rig.chain.blocks.pop()
    rig.chain.pool = waiting
    rig.chain.mine()
    rig.new_lane().run()
    assert rig.state(key) is IntentState.MINED, "by another process, in another block of the same number"
    with capture_logs() as logs:
        rig.lane.run(same_head=True)
    assert rig.state(key) is IntentState.MINED
    assert not [line for line in logs if line["action"] in ("lane_reorg", "lane_reopened")]


@pytest.mark.parametrize("same_head", [False, True])
def test_a_run_that_the_node_did_not_answer_leaves_nothing_to_be_used_again(*, same_head: bool) -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.run()
    rig.submit("any", "b")
    rig.chain.frozen = True
    assert rig.lane.run(same_head=same_head).trouble is not None
    rig.chain.frozen = False
    rig.chain.asked.clear()
    rig.lane.run(same_head=True)
    assert rig.chain.asked["eth_getTransactionCount"] == 1


@pytest.mark.parametrize("unanswered", ["eth_gasPrice", "eth_sendRawTransaction"])
def test_a_run_that_breaks_off_reports_what_ended_before(unanswered: str) -> None:
    rig = Rig(LanePolicy(finality=1))
    (final,) = rig.submit("any", "a")
    rig.step()
    rig.chain.mine()
    rig.chain.done_by_others.add("b")
    (done,) = rig.submit("once", "b")
    rig.submit("any", "c")
    rig.chain.fog[unanswered] = "cut"
    report = rig.lane.run()
    assert report.trouble is not None
    assert [intent.key for intent in report.ended] == [final, done]


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


def test_an_array_that_a_stranger_made_revert_by_doing_one_of_it_goes_again_without_that_one() -> None:
    rig = Rig()
    keys = rig.submit("once", "a", "b", "c")
    rig.run()
    rig.chain.done_by_others.add("b")
    rig.step(3)
    assert [rig.state(key) for key in keys] == [IntentState.MINED, IntentState.DONE, IntentState.MINED]
    # One transaction that reverted and one more, not one for each that is left.
    assert rig.chain.count() == 2


def test_an_array_that_reverts_for_no_known_reason_goes_again_one_by_one() -> None:
    rig = Rig()
    keys = rig.submit("once", "a", "b", "c")
    rig.run()
    rig.chain.failing.add("b")
    rig.step()
    rig.chain.failing.clear()
    rig.step(3)
    assert [rig.state(key) for key in keys] == [IntentState.MINED] * 3
    assert rig.chain.count() == 4


def test_one_that_makes_no_call_fails_alone_and_not_with_those_that_shared_its_transaction() -> None:
    rig = Rig()
    rig.encoder.misfits.add("b")
    first, bad, last = rig.submit("once", "a", "b", "c")
    rig.step()
    assert (rig.state(first), rig.state(bad), rig.state(last)) == (
        IntentState.MINED,
        IntentState.FAILED,
        IntentState.MINED,
    )
    assert "lacks an argument" in rig.reason(bad)


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


def test_while_one_lane_runs_the_other_waits() -> None:
    rig = Rig()
    rig.submit("any", "a")
    lease = rig.store.take_lease(rig.id, "elsewhere", 5.0)
    assert lease is not None
    assert rig.run().busy
    rig.clock.now += 6
    assert not rig.run().busy


def test_a_node_that_does_not_answer_is_reported_and_survived() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.chain.frozen = True
    assert rig.run().trouble is not None
    rig.chain.frozen = False
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_nonces_that_foreign_transactions_used_before_ours_are_left_out_and_logged() -> None:
    rig = Rig(LanePolicy(finality=1))
    rig.submit("any", "a")
    rig.step(3)
    rig.chain.foreign()
    (key,) = rig.submit("any", "b")
    with capture_logs() as lines:
        rig.step()
    (said,) = [line for line in lines if line["action"] == "lane_key_shared"]
    assert (said["first"], said["nonces"]) == (1, 1)
    assert rig.state(key) is IntentState.MINED


def test_no_more_of_the_queue_is_judged_than_there_is_room_for() -> None:
    rig = Rig(LanePolicy(max_in_flight=300, window=200))
    rig.submit("any", *(f"n{number}" for number in range(600)))
    rig.lane.run()
    assert rig.readiness.judged == [200, 101]


def test_where_most_must_wait_more_of_the_queue_is_judged_at_once() -> None:
    rig = Rig(LanePolicy(max_in_flight=4, window=500))
    waiting = [f"w{number}" for number in range(600)]
    rig.chain.blocked.update(waiting)
    rig.submit("any", *waiting, "ready")
    rig.lane.run()
    assert rig.readiness.judged == [64, 320, 217]


def _sent_without_an_answer(rig: Rig) -> str:
    """Submit an intent whose transaction is mined, although the run that sent it was not told, and no receipt shows."""
    (key,) = rig.submit("any", "a")

    def lost(params: list[str]) -> object:
        rig.chain._send(params[0])
        raise RpcUnavailable(what="model", why="no answer within 5 s")

    rig.chain.lies["eth_sendRawTransaction"] = lost
    assert rig.lane.run().trouble is not None
    rig.chain.lies.clear()
    rig.chain.mine()
    rig.chain.no_receipts = True
    return key


def test_an_intent_whose_nonce_is_spent_unseen_is_not_chosen_again_and_holds_up_no_other() -> None:
    rig = Rig()
    key = _sent_without_an_answer(rig)
    (later,) = rig.submit("any", "b")
    with capture_logs() as lines:
        for _ in range(3):
            report = rig.lane.run()
            assert (report.busy, report.wake_again) == (False, False)
            rig.chain.mine()
    assert "lane_lease_lost" not in [line["action"] for line in lines]
    assert rig.state(key) is IntentState.SENT
    assert rig.state(later) is IntentState.SENT
    assert rig.chain.executed() == {"a": 1, "b": 1}
    rig.step(rig.policy.alarm_after + 1)
    assert "nonce 0 is spent" in (rig.store.waiting(rig.id) or "")
    rig.chain.no_receipts = False
    rig.step()
    assert rig.state(key) is IntentState.FINAL
    assert rig.store.waiting(rig.id) is None


def test_what_is_known_of_a_nonce_that_is_spent_unseen_is_written_once() -> None:
    rig = Rig()
    _sent_without_an_answer(rig)
    rig.step()
    before = rig.store._record_fences[rig.id, Nonce(0)]
    rig.step(4)
    assert rig.store._record_fences[rig.id, Nonce(0)] == before


def test_a_lane_whose_records_contradict_each_other_says_so_and_does_not_run_hot() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.step(rig.policy.finality + 2)
    assert rig.state(key) is IntentState.FINAL
    # What a database looks like whose collections were restored from copies of different days.
    rig.store._intents[key] = replace(rig.store._intents[key], state=IntentState.QUEUED)
    with capture_logs() as lines:
        report = rig.lane.run()
    assert (report.busy, report.wake_again) == (False, False)
    assert "contradict" in (report.trouble or "")
    assert "lane_lease_lost" not in [line["action"] for line in lines]
    assert "contradict" in (rig.store.waiting(rig.id) or "")
    assert [finding.kind for finding in audit(rig.lane)] == ["queued_again"]
    assert rig.chain.executed() == {"a": 1}
