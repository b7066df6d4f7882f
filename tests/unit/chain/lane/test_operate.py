"""What an operator does by hand, and what he is kept from."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from chain.lane import admin
from chain.lane.audit import audit
from chain.lane.model.intent import IntentState
from chain.lane.model.policy import LanePolicy
from protocol.errors import BadInput
from protocol.types import Nonce
from tests.unit.chain.lane.rig import Rig


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
    admin.disown(rig.lane, Nonce(0))
    rig.step(2)
    assert rig.state(key) is IntentState.MINED
    assert rig.chain.executed() == {"a": 1, "b": 1}


def test_only_a_spent_nonce_can_be_disowned() -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.run()
    with pytest.raises(BadInput, match="not spent"):
        admin.disown(rig.lane, Nonce(0))


def test_an_operators_cancel_spends_the_nonce_and_fails_the_intent() -> None:
    rig = Rig(LanePolicy(finality=2))
    key, other = rig.submit("any", "a", "b")
    rig.chain.per_block = 0
    rig.run()
    admin.cancel(rig.lane, Nonce(0))
    rig.chain.per_block = 8
    rig.step(4)
    assert rig.state(key) is IntentState.FAILED
    assert rig.state(other) is IntentState.FINAL
    assert rig.chain.executed() == {"b": 1}


def _halted() -> tuple[Rig, str]:
    """A lane that is halted because a foreign transaction took nonce 0 from its one intent."""
    rig = Rig(LanePolicy(finality=3))
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.foreign()
    assert rig.step(4).halted is not None
    return rig, key


def test_a_lane_that_stands_still_says_so_wherever_it_is_asked() -> None:
    rig, _ = _halted()
    status = admin.status(rig.lane)
    assert status.halted is not None
    assert status.why == status.halted
    assert REGISTRY.get_sample_value("sluice_lane_halted", {"wallet": rig.id.wallet}) == 1
    admin.disown(rig.lane, Nonce(0))
    rig.run()
    assert admin.status(rig.lane).halted is None
    assert REGISTRY.get_sample_value("sluice_lane_halted", {"wallet": rig.id.wallet}) == 0


def test_why_the_queue_does_not_move_is_what_holds_its_oldest_intent() -> None:
    rig = Rig()
    assert admin.status(rig.lane).why == "nothing waits"
    rig.chain.blocked = {"a"}
    rig.submit("once", "a", "b")
    assert admin.status(rig.lane).why == "2 in the queue, the oldest is once of a: blocked"
    rig.chain.blocked = set()
    assert admin.status(rig.lane).why == "2 in the queue, the oldest is once of a: goes with the next run"


def test_disowning_in_a_dry_run_says_what_would_become_of_the_intents_and_changes_nothing() -> None:
    rig, key = _halted()
    (move,) = admin.disown(rig.lane, Nonce(0), dry_run=True)
    assert (move.keys, move.state) == ((key,), IntentState.QUEUED)
    assert rig.state(key) is IntentState.SENT
    assert rig.run().halted is not None


def test_a_nonce_is_not_disowned_while_the_lane_still_looks_for_its_receipt() -> None:
    rig = Rig(LanePolicy(finality=3))
    rig.submit("any", "a")
    rig.run()
    rig.chain.drop()
    rig.chain.foreign()
    rig.run()
    with pytest.raises(BadInput, match="still looks"):
        admin.disown(rig.lane, Nonce(0))


def test_a_nonce_that_turns_out_to_be_ours_is_not_disowned_or_its_call_would_be_made_twice() -> None:
    rig = Rig(LanePolicy(finality=2))
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.mine()
    rig.store.halt(rig.id, "Nonce 0 was used by a transaction that is not ours.")
    with pytest.raises(BadInput, match="is ours"):
        admin.disown(rig.lane, Nonce(0))
    admin.resume(rig.lane)
    rig.step(3)
    assert rig.state(key) is IntentState.FINAL
    assert rig.chain.executed() == {"a": 1}


def test_a_lane_that_is_resumed_while_nothing_has_changed_stops_again() -> None:
    rig, _ = _halted()
    assert "Nonce 0" in admin.resume(rig.lane, dry_run=True)
    assert rig.run().halted is not None
    admin.resume(rig.lane)
    assert rig.run().halted is not None


def test_a_lane_that_goes_on_cannot_be_resumed() -> None:
    with pytest.raises(BadInput, match="is not halted"):
        admin.resume(Rig().lane)


def test_the_price_of_a_cancel_is_that_of_a_plain_transfer() -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.run()
    bump, cancel = admin.quote_bump(rig.lane, Nonce(0)), admin.quote_cancel(rig.lane, Nonce(0))
    assert bump.cost == bump.fees.max_fee * 50_000
    assert cancel.cost == bump.fees.max_fee * 21_000


def test_a_replacement_that_the_node_refuses_is_answered_in_its_words_and_sent_again_later() -> None:
    rig = Rig()
    (key,) = rig.submit("any", "a")
    rig.run()
    rig.chain.refuses["a"] = "txpool is full"
    replaced = admin.bump(rig.lane, Nonce(0))
    assert replaced.answer == "txpool is full"
    record = rig.store.record(rig.id, Nonce(0))
    assert record is not None
    assert record.sent_block is None
    rig.chain.refuses.clear()
    rig.step(2)
    assert rig.state(key) is IntentState.MINED


def test_gaps_are_priced_before_they_are_filled() -> None:
    rig = Rig()
    rig.submit("any", "a", "b", "c", "d")
    rig.run()
    # What a database restored from an older copy looks like.
    for nonce in (1, 2):
        del rig.store._records[rig.id][Nonce(nonce)]
    rig.chain.drop(1)
    offer = admin.quote_gaps(rig.lane)
    assert offer.nonces == (1, 2)
    assert offer.cost == 2 * 21_000 * offer.fees.max_fee
    assert admin.fill_gaps(rig.lane) == [1, 2]
    rig.step(4)
    assert rig.chain.count() == 4


def test_a_nonce_is_not_disowned_before_the_foreign_block_is_final() -> None:
    rig, _ = _halted()
    # A reorg deeper than finality puts the foreign transaction into a new block. Another could put in the lane's own.
    rig.chain.reorg(5, keep=False)
    rig.chain.foreign()
    with pytest.raises(BadInput, match=r"Nonce 0 was taken by 0x.* from outside.*not final yet"):
        admin.disown(rig.lane, Nonce(0))
    for _ in range(2):
        rig.chain.mine()
    with pytest.raises(BadInput, match="not final yet"):
        admin.disown(rig.lane, Nonce(0))
    rig.chain.mine()
    assert admin.disown(rig.lane, Nonce(0))


@pytest.mark.parametrize("receipt", [None, {"transactionHash": "0x1", "blockNumber": None, "blockHash": None}])
def test_an_audit_says_of_a_receipt_without_a_block_what_it_says_of_none(receipt: object) -> None:
    rig = Rig()
    rig.submit("any", "a")
    rig.step()
    rig.chain.lies["eth_getTransactionReceipt"] = lambda _: receipt
    assert [finding.kind for finding in audit(rig.lane)] == ["lost_receipt"]
