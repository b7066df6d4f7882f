"""Intents that left their nonce: what counts against them, and what does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chain.lane import admin
from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.nonce import NonceState, Purpose
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.release import after_release, judge_released
from chain.lane.phases.snapshot import take_snapshot
from chain.lane.rules.fees import GWEI, FeePolicy
from chain.lane.rules.readiness import READY, Judgement, Moment, ReadinessVerdict
from protocol.types import BlockNumber, Nonce, Timestamp, Wei
from tests.unit.chain.lane.model import CHAIN_ID, WALLET, ModelChain, ModelReadiness
from tests.unit.chain.lane.rig import Rig

SILENCE = ReadinessVerdict(Judgement.WAIT, "the hub cannot be asked: header not found", unanswered=True)


class Silent(ModelReadiness):
    """A node that answers no view of the blocks up to `until`."""

    def __init__(self, chain: ModelChain) -> None:
        super().__init__(chain)
        self.until = -1

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        verdicts = super().check(intents, at)
        return [SILENCE] * len(verdicts) if at.block <= self.until else verdicts


def silent_rig(policy: LanePolicy | None = None) -> tuple[Rig, Silent]:
    rig = Rig(policy or LanePolicy())
    readiness = Silent(rig.chain)
    rig.readiness = readiness
    rig.lane = rig.new_lane()
    return rig, readiness


def test_a_revert_that_the_node_does_not_explain_counts_against_no_vote() -> None:
    rig, node = silent_rig()
    rig.chain.failing.add("t")
    (key,) = rig.submit("once", "t")
    rig.run()
    node.until = 10**6
    rig.step(8)
    (intent,) = rig.store.intents([key])
    assert (intent.state, intent.generation) == (IntentState.QUEUED, 0)
    assert rig.chain.count() == 1
    node.until = -1
    rig.chain.failing.clear()
    rig.step()
    assert rig.state(key) is IntentState.MINED


def test_what_goes_on_being_sent_goes_on_being_counted_though_the_node_keeps_no_state_but_the_heads() -> None:
    rig, node = silent_rig()
    rig.chain.failing.add("t")
    (key,) = rig.submit("once", "t")
    for _ in range(8):
        rig.run()
        rig.chain.mine()
        rig.chain.mine()
        node.until = len(rig.chain.blocks) - 2
    rig.run()
    (intent,) = rig.store.intents([key])
    assert (intent.state, intent.generation) == (IntentState.FAILED, 3)


@pytest.mark.parametrize("fog", ["null", "behind"])
def test_a_revert_in_a_block_whose_time_is_not_known_is_judged_by_the_head_and_never_at_time_0(fog: str) -> None:
    class Timed(ModelReadiness):
        def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
            asked.append(at)
            return super().check(intents, at)

    asked: list[Moment] = []
    rig = Rig()
    rig.readiness = Timed(rig.chain)
    rig.lane = rig.new_lane()
    head = take_snapshot(rig.chain, WALLET, None)
    judge_released(rig.lane.context, head, Purpose.CALL, [rig.intent("once", "t")], None)
    assert asked == [head.moment]
    rig.chain.failing.add("t")
    rig.submit("once", "t")
    rig.run()
    rig.chain.mine()
    seen = rig.chain.announced()
    rig.chain.fog["eth_getBlockByNumber"] = fog
    asked.clear()
    rig.lane.run(announced=seen)
    assert asked
    assert all(at.timestamp > 0 for at in asked)


def test_a_step_that_came_too_early_is_counted_though_the_node_does_not_explain_it() -> None:
    intent = Intent.new(CHAIN_ID, WALLET, "contribute", "t")
    assert after_release(3, intent, SILENCE, "reverted", early=True).generation == 1
    assert after_release(3, intent, SILENCE, "reverted").generation is None


def test_a_known_rule_that_says_wait_and_a_revert_that_nothing_explains_are_counted() -> None:
    intent = Intent.new(CHAIN_ID, WALLET, "contribute", "t")
    for verdict in (READY, ReadinessVerdict(Judgement.WAIT, "the task is not initialized yet")):
        assert after_release(3, intent, verdict, "reverted").generation == 1


def test_a_vote_that_makes_room_for_reveals_any_number_of_times_waits_and_is_mined_in_the_end() -> None:
    policy = LanePolicy(finality=1, fees=FeePolicy(ceiling=Wei(5 * GWEI)), uncapped=frozenset({"once"}))
    rig = Rig(policy)
    (vote,) = rig.submit("any", "v")
    for number in range(policy.max_generations + 1):
        rig.run()
        assert rig.state(vote) is IntentState.SENT
        rig.chain.base_fee = 20 * GWEI
        # Worth a no-op and its own gas, and not the vote's gas too.
        worth = (50_000 + 25_000) * 21 * GWEI
        reveal = Intent.new(CHAIN_ID, WALLET, "once", f"r{number}", {"worth": str(worth)}, rig.clock.now)
        rig.lane.submit([reveal])
        rig.step(8)
        assert rig.state(reveal.key) is IntentState.FINAL
        (waiting,) = rig.store.intents([vote])
        assert (waiting.state, waiting.generation) == (IntentState.QUEUED, 0)
        rig.chain.base_fee = GWEI
        rig.chain.mine()
    rig.step(2)
    assert rig.state(vote) is IntentState.FINAL
    assert rig.chain.executed()["v"] == 1


def test_a_nonce_that_a_stranger_took_counts_against_none_of_its_intents() -> None:
    rig = Rig(LanePolicy(finality=2))
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.foreign()
    assert rig.step(3).halted is not None
    admin.disown(rig.lane, Nonce(0))
    (intent,) = rig.store.intents([key])
    assert (intent.state, intent.generation) == (IntentState.QUEUED, 0)


def test_what_the_node_does_not_tell_is_not_sent_is_reported_and_is_asked_again() -> None:
    rig, node = silent_rig()
    node.until = 10**6
    (key,) = rig.submit("once", "t")
    rig.step(rig.policy.alarm_after - 1)
    assert rig.store.waiting(rig.id) is None
    rig.step(2)
    assert "header not found" in (rig.store.waiting(rig.id) or "")
    assert "header not found" in admin.status(rig.lane).why
    assert rig.store.records(rig.id, list(NonceState)) == []
    node.until = -1
    rig.step()
    assert rig.state(key) is IntentState.MINED
    assert rig.store.waiting(rig.id) is None


def test_what_the_node_does_not_tell_of_the_block_is_asked_at_the_head_and_the_rest_stands() -> None:
    rig, node = silent_rig()
    rig.step(5)
    rig.chain.mine()
    head = take_snapshot(rig.chain, WALLET, None)
    node.until = head.head - 1
    rig.chain.done_by_others.add("a")
    intents = [rig.intent("once", "a"), rig.intent("once", "b")]
    below = Moment(BlockNumber(head.head - 1), Timestamp(1))
    verdicts = judge_released(rig.lane.context, head, Purpose.CALL, intents, below)
    assert [verdict.judgement for verdict in verdicts] == [Judgement.DONE, Judgement.READY]
