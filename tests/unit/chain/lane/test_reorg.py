"""Blocks that disappear, above and below finality."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from chain.lane.model.intent import IntentState
from chain.lane.model.nonce import NonceState, Purpose
from chain.lane.model.policy import LanePolicy
from protocol.types import Nonce
from tests.unit.chain.lane.rig import Rig


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


def test_a_block_that_only_another_node_still_shows_is_not_proved_by_later_heads() -> None:
    rig = Rig(LanePolicy(finality=3))
    rig.submit("any", "a")
    rig.step()
    gone = rig.chain.blocks[-1]
    told = rig.chain._header(rig.chain.blocks, "latest", 0)
    rig.chain.reorg(1, keep=True)
    rig.chain.mine()

    def other_node(params: list[Any]) -> Any:
        """Asked for the newest block, the node answers; for any other, one that has not heard of the reorg."""
        if params[0] == "latest":
            return rig.chain._header(rig.chain.blocks, "latest", 0)
        return told if params[0] == hex(gone.number) else None

    rig.chain.lies["eth_getBlockByNumber"] = other_node
    rig.run()
    rig.chain.lies.clear()
    rig.step(4)
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert record.mined is not None
    assert record.mined.block_hash == rig.chain.blocks[record.mined.block].hash != gone.hash


def test_a_reorg_below_finality_reopens_final_nonces() -> None:
    rig = Rig(LanePolicy(finality=2))
    (key,) = rig.submit("any", "a")
    rig.step(5)
    assert rig.state(key) is IntentState.FINAL
    rig.submit("any", "b")
    rig.chain.reorg(6, keep=False)
    rig.step(2)
    assert rig.chain.executed() == {"a": 1, "b": 1}


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


def test_a_node_that_has_thrown_old_blocks_away_says_nothing_about_them() -> None:
    rig = Rig(LanePolicy(finality=2))
    rig.submit("any", "a")
    rig.step(10)
    rig.chain.pruned_below = 8
    rig.chain.asked.clear()
    with capture_logs() as logs:
        rig.step(3)
    assert [entry["action"] for entry in logs if entry["action"] in {"lane_reorg", "lane_final_undone"}] == []
    assert rig.chain.asked["eth_getTransactionReceipt"] == 0


def test_a_call_that_was_given_up_when_it_reverted_is_known_to_be_done_once_a_reorg_lets_it_succeed() -> None:
    """A vote that nobody knows to be on chain is not revealed, and its stake is lost."""
    rig = Rig(LanePolicy(finality=3, max_generations=1))
    rig.chain.failing.add("a")
    (key,) = rig.submit("once", "a")
    rig.step()
    assert rig.state(key) is IntentState.FAILED
    rig.chain.failing.clear()
    rig.chain.reorg(1, keep=True)
    rig.chain.mine()
    report = rig.run()
    assert report.mined == (key,)
    assert rig.state(key) is IntentState.MINED
    held = rig.store.holding(rig.id, key)
    assert held is not None
    assert (held.nonce, held.released) == (0, ())
    rig.step(4)
    assert rig.state(key) is IntentState.FINAL
    assert rig.chain.executed() == {"a": 1}


def test_what_came_back_to_its_nonce_leaves_it_again_if_the_next_reorg_has_it_revert() -> None:
    rig = Rig(LanePolicy(finality=3, max_generations=1))
    rig.chain.failing.add("a")
    (key,) = rig.submit("once", "a")
    rig.step()
    rig.chain.failing.clear()
    rig.chain.reorg(1, keep=True)
    rig.chain.mine()
    rig.run()
    assert rig.state(key) is IntentState.MINED
    rig.chain.failing.add("a")
    rig.chain.reorg(1, keep=True)
    rig.chain.mine()
    rig.run()
    assert rig.state(key) is IntentState.FAILED
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert (record.intents, record.released) == ((), (key,))


def test_what_another_nonce_carries_by_now_does_not_come_back_and_is_done_once() -> None:
    rig = Rig(LanePolicy(finality=3))
    rig.chain.failing.add("a")
    (key,) = rig.submit("once", "a")
    rig.step()
    held = rig.store.holding(rig.id, key)
    assert held is not None
    assert held.nonce == 1
    rig.chain.failing.clear()
    rig.chain.reorg(1, keep=True)
    rig.chain.mine()
    rig.step(5)
    assert rig.state(key) is IntentState.DONE
    assert rig.chain.executed() == {"a": 1}


def test_what_was_deleted_since_it_was_given_up_does_not_come_back() -> None:
    rig = Rig(LanePolicy(finality=3, max_generations=1))
    rig.chain.failing.add("a")
    (key,) = rig.submit("once", "a")
    rig.step()
    del rig.store._intents[key]
    rig.chain.failing.clear()
    rig.chain.reorg(1, keep=True)
    rig.chain.mine()
    report = rig.run()
    assert (report.trouble, report.mined) == (None, ())
    assert rig.chain.executed() == {"a": 1}
