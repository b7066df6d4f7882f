"""What every store of the lane must do: one suite, run on MongoDB, SQLite and memory alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chain.lane.model.intent import UNENDED, Intent, IntentState, LaneId
from chain.lane.model.nonce import (
    Attempt,
    Consumed,
    Disowned,
    Fees,
    Finalised,
    Mined,
    NonceMove,
    NonceRecord,
    NonceState,
    Purpose,
    Reclaimed,
    Released,
    Repriced,
    Sent,
    Unmined,
    apply,
    nonces_of,
)
from chain.lane.store.lease import LaneLease
from chain.lane.store.port import IntentMove, LaneStore
from protocol.errors import LeaseLost
from protocol.types import BlockHash, BlockNumber, Contract, Nonce, TxHash, Wallet, Wei
from tests.waiting import wait_until

LANE = LaneId(7, Wallet("0x" + "ab" * 20))
OTHER = LaneId(7, Wallet("0x" + "cd" * 20))
#: Of a process that lives somewhere else, so that nobody takes it for dead.
HOLDER, RIVAL = "elsewhere|1|1|a", "elsewhere|2|2|b"
#: Larger than what 64 bits hold.
HUGE = Wei(2**70)


def intent(name: str, at: float = 1.0, lane: LaneId = LANE) -> Intent:
    return Intent.new(lane.chain_id, lane.wallet, "reveal", name, {"digest": "0x1", "list": [1, {"a": None}]}, at)


def attempt(number: int, purpose: Purpose = Purpose.CALL) -> Attempt:
    return Attempt(TxHash(f"0x{number:064x}"), "0x02ff", Fees(HUGE, Wei(1)), purpose, "a note")


def record(nonce: int, *names: str, lane: LaneId = LANE, at: float = 5.0) -> NonceRecord:
    keys = tuple(intent(name, lane=lane).key for name in names)
    first = attempt(nonce)
    return NonceRecord(
        lane,
        Nonce(nonce),
        keys,
        Contract("0x" + "ee" * 20),
        "0xdead",
        21_000,
        (first,),
        at,
        value=HUGE,
        early=nonce % 2 == 1,
    )


def mined(nonce: int, block: int = 10, fee: int = 3) -> Mined:
    return Mined(attempt(nonce).tx_hash, BlockNumber(block), BlockHash("0xbb"), success=True, fee=Wei(fee), gas_used=21)


def past(store: LaneStore, lease: LaneLease, nonces: range, at: float = 5.0) -> None:
    """Nonces that were mined long ago, each with an intent of its own."""
    records = [record(nonce, f"past {nonce}", at=at) for nonce in nonces]
    intents = [intent(f"past {nonce}", at=at) for nonce in nonces]
    store.add(intents)
    store.claim(lease, records)
    numbers = tuple(item.nonce for item in records)
    moves: list[NonceMove] = [Consumed(nonce, mined(nonce)) for nonce in numbers]
    keys = tuple(item.key for item in intents)
    store.move(lease, [IntentMove(keys, IntentState.FINAL, BlockNumber(10))], [*moves, Finalised(numbers)])


def queries_of_a_run(store: LaneStore) -> dict[str, Callable[[], object]]:
    """Every question that a run asks of its store, by the name of the method."""
    both = (NonceState.MINED, NonceState.FINAL)
    return {
        "busy": lambda: store.busy(LANE),
        "newest": lambda: store.newest(LANE, both, 1, None),
        "records open": lambda: store.records(LANE, (NonceState.OPEN,)),
        "records unsettled": lambda: store.records(LANE, (NonceState.OPEN, NonceState.MINED)),
        "records deep": lambda: store.records(LANE, (NonceState.MINED,), up_to=BlockNumber(5)),
        "record": lambda: store.record(LANE, Nonce(3)),
        "highest_nonce": lambda: store.highest_nonce(LANE),
        "holding": lambda: store.holding(LANE, intent("open").key),
        "queued": lambda: store.queued(LANE, 64),
        "count queued": lambda: store.count(LANE, (IntentState.QUEUED,)),
        "count unended": lambda: store.count(LANE, UNENDED),
        "in_state": lambda: store.in_state(LANE, (IntentState.SENT, IntentState.MINED), 100),
        "intents": lambda: store.intents([intent("open").key]),
        "spent_since": lambda: store.spent_since(LANE, 5.0),
        "halted": lambda: store.halted(LANE),
        "waiting": lambda: store.waiting(LANE),
    }


class LaneStoreContract:
    """Subclasses give the fixture `store`, empty."""

    def lease(self, store: LaneStore, seconds: float = 60.0) -> LaneLease:
        lease = store.take_lease(LANE, HOLDER, seconds)
        assert lease is not None
        return lease

    # -- intents -------------------------------------------------------------------------------------------------------

    def test_an_intent_comes_back_as_it_was_stored(self, store: LaneStore) -> None:
        store.add([intent("a")])
        assert store.intents([intent("a").key]) == [intent("a")]

    def test_a_key_is_stored_once(self, store: LaneStore) -> None:
        assert store.add([intent("a"), intent("b")]) == 2
        assert store.add([intent("a", at=9.0), intent("c")]) == 1
        assert store.intents([intent("a").key])[0].created_at == 1.0

    def test_what_was_found_done_queues_again_when_asked_for_again(self, store: LaneStore) -> None:
        store.add([intent("a"), intent("b")])
        store.move(self.lease(store), [IntentMove((intent("a").key,), IntentState.DONE, reason="so already")], [])
        assert store.add([intent("a"), intent("b")]) == 1
        assert store.intents([intent("a").key])[0].state is IntentState.QUEUED

    def test_what_has_failed_or_is_final_stays_so(self, store: LaneStore) -> None:
        store.add([intent("a"), intent("b")])
        moves = [
            IntentMove((intent("a").key,), IntentState.FAILED, reason="late"),
            IntentMove((intent("b").key,), IntentState.FINAL, block=BlockNumber(3)),
        ]
        store.move(self.lease(store), moves, [])
        assert store.add([intent("a"), intent("b")]) == 0
        found = store.intents([intent("a").key, intent("b").key])
        assert {item.state for item in found} == {IntentState.FAILED, IntentState.FINAL}

    def test_the_queue_is_oldest_first_and_per_wallet(self, store: LaneStore) -> None:
        store.add([intent("c", 3.0), intent("a", 1.0), intent("b", 2.0), intent("x", 0.5, OTHER)])
        assert [item.subject for item in store.queued(LANE, 10)] == ["a", "b", "c"]
        assert [item.subject for item in store.queued(LANE, 1, skip=1)] == ["b"]

    def test_intents_are_counted_and_listed_by_state(self, store: LaneStore) -> None:
        store.add([intent("a"), intent("b"), intent("c")])
        keys = (intent("a").key, intent("b").key)
        store.move(self.lease(store), [IntentMove(keys, IntentState.MINED, block=BlockNumber(4), generation=2)], [])
        assert store.count(LANE, [IntentState.MINED]) == 2
        assert store.count(LANE, [IntentState.MINED, IntentState.QUEUED]) == 3
        listed = store.in_state(LANE, [IntentState.MINED], 10)
        assert [(item.subject, item.block, item.generation) for item in listed] == [("a", 4, 2), ("b", 4, 2)]

    def test_a_lane_is_busy_while_an_intent_or_a_nonce_is_not_settled(self, store: LaneStore) -> None:
        assert not store.busy(LANE)
        store.add([intent("a")])
        assert store.busy(LANE)
        assert not store.busy(OTHER)
        lease = self.lease(store)
        store.claim(lease, [record(0)])
        store.move(lease, [IntentMove((intent("a").key,), IntentState.FINAL)], [])
        assert store.busy(LANE)
        store.move(lease, [], [Consumed(Nonce(0), mined(0)), Finalised((Nonce(0),))])
        assert not store.busy(LANE)

    # -- the lease -----------------------------------------------------------------------------------------------------

    def test_a_held_lease_is_not_given_to_another(self, store: LaneStore) -> None:
        self.lease(store)
        assert store.take_lease(LANE, RIVAL, 60.0) is None
        assert store.take_lease(OTHER, RIVAL, 60.0) is not None

    def test_every_taker_gets_a_higher_fence(self, store: LaneStore) -> None:
        first = self.lease(store)
        store.give_back(first)
        second = store.take_lease(LANE, RIVAL, 60.0)
        assert second is not None
        assert second.fence > first.fence

    def test_an_expired_lease_can_be_taken_and_not_renewed(self, store: LaneStore) -> None:
        first = self.lease(store, 0.05)
        second = wait_until(lambda: store.take_lease(LANE, RIVAL, 60.0), 5, what="the end of the lease")
        assert second is not None
        assert second.fence > first.fence
        with pytest.raises(LeaseLost):
            store.renew_lease(first, 60.0)
        store.give_back(first)
        assert store.take_lease(LANE, HOLDER, 60.0) is None

    def test_a_renewed_lease_lasts(self, store: LaneStore) -> None:
        lease = self.lease(store, 0.0)
        store.renew_lease(lease, 60.0)
        assert store.take_lease(LANE, RIVAL, 60.0) is None

    def test_a_lease_carries_the_halt_until_it_is_lifted(self, store: LaneStore) -> None:
        assert store.halted(LANE) is None
        store.halt(LANE, "foreign nonce")
        assert store.halted(LANE) == "foreign nonce"
        assert store.halted(OTHER) is None
        first = self.lease(store)
        assert first.halted == "foreign nonce"
        store.give_back(first)
        store.halt(LANE, None)
        assert store.halted(LANE) is None
        assert self.lease(store).halted is None

    def test_a_halt_by_a_run_that_was_overtaken_is_refused(self, store: LaneStore) -> None:
        stale = self.lease(store, 0.0)
        fresh = store.take_lease(LANE, RIVAL, 60.0)
        assert fresh is not None
        with pytest.raises(LeaseLost):
            store.halt(LANE, "foreign nonce", stale)
        with pytest.raises(LeaseLost):
            store.set_waiting(stale, "a receipt")
        assert (store.halted(LANE), store.waiting(LANE)) == (None, None)
        store.halt(LANE, "foreign nonce", fresh)
        assert store.halted(LANE) == "foreign nonce"

    def test_what_a_lane_waits_for_is_read_by_every_process(self, store: LaneStore) -> None:
        assert store.waiting(LANE) is None
        lease = self.lease(store)
        store.set_waiting(lease, "a receipt")
        store.give_back(lease)
        assert (store.waiting(LANE), store.waiting(OTHER)) == ("a receipt", None)
        again = self.lease(store)
        assert (again.waiting, again.halted) == ("a receipt", None)
        store.set_waiting(again, None)
        assert store.waiting(LANE) is None

    # -- nonces --------------------------------------------------------------------------------------------------------

    def test_a_record_comes_back_as_it_was_claimed(self, store: LaneStore) -> None:
        store.claim(self.lease(store), [record(4, "a", "b")])
        assert store.record(LANE, Nonce(4)) == record(4, "a", "b")
        assert store.record(LANE, Nonce(5)) is None
        assert store.highest_nonce(LANE) == 4
        assert store.highest_nonce(OTHER) is None

    def test_a_nonce_is_claimed_once(self, store: LaneStore) -> None:
        lease = self.lease(store)
        store.claim(lease, [record(1, "a")])
        with pytest.raises(LeaseLost):
            store.claim(lease, [record(1, "b")])
        assert store.record(LANE, Nonce(1)) == record(1, "a")

    def test_an_intent_is_at_one_nonce_at_a_time(self, store: LaneStore) -> None:
        lease = self.lease(store)
        store.claim(lease, [record(1, "a", "b")])
        with pytest.raises(LeaseLost):
            store.claim(lease, [record(2, "c", "b")])
        assert store.record(LANE, Nonce(2)) is None
        held = store.holding(LANE, intent("b").key)
        assert held is not None
        assert held.nonce == 1

    def test_a_released_intent_can_have_another_nonce(self, store: LaneStore) -> None:
        lease = self.lease(store)
        store.claim(lease, [record(1, "a", "b")])
        store.move(lease, [], [Released(Nonce(1), mined(1))])
        store.claim(lease, [record(2, "b"), record(3)])
        held = store.holding(LANE, intent("b").key)
        assert held is not None
        assert held.nonce == 2
        first = store.record(LANE, Nonce(1))
        assert first is not None
        assert first.intents == ()
        assert first.released == (intent("a").key, intent("b").key)

    def test_an_intent_that_came_back_to_its_nonce_is_there_and_nowhere_else(self, store: LaneStore) -> None:
        lease = self.lease(store)
        store.claim(lease, [record(1, "a", "b")])
        store.move(lease, [], [Released(Nonce(1), mined(1))])
        store.claim(lease, [record(2, "b")])
        store.move(lease, [], [Reclaimed(Nonce(1), mined(1), (intent("a").key,))])
        first, second = store.holding(LANE, intent("a").key), store.holding(LANE, intent("b").key)
        assert first is not None
        assert second is not None
        assert (first.nonce, first.intents, first.released) == (1, (intent("a").key,), (intent("b").key,))
        assert second.nonce == 2
        with pytest.raises(LeaseLost):
            store.claim(lease, [record(3, "a")])

    def test_many_records_may_carry_nothing(self, store: LaneStore) -> None:
        store.claim(self.lease(store), [record(1), record(2), record(3)])
        assert [item.nonce for item in store.records(LANE, [NonceState.OPEN])] == [1, 2, 3]

    def test_a_conflict_leaves_no_later_nonce_without_an_earlier(self, store: LaneStore) -> None:
        lease = self.lease(store)
        store.claim(lease, [record(2, "b")])
        with pytest.raises(LeaseLost):
            store.claim(lease, [record(1, "a"), record(2, "c"), record(3, "d")])
        assert store.record(LANE, Nonce(3)) is None

    def test_every_move_does_to_a_stored_record_what_it_does_to_a_value(self, store: LaneStore) -> None:
        lease = self.lease(store)
        one, two = Nonce(1), Nonce(2)
        moves: list[NonceMove] = [
            Sent((one, two), BlockNumber(8)),
            Repriced(one, attempt(99)),
            Sent((one,), BlockNumber(9)),
            Consumed(one, mined(1)),
            Unmined((one,)),
            Consumed(one, replace(mined(1, block=12), fee=HUGE)),
            Released(one, replace(mined(1, block=13), success=False)),
            Reclaimed(one, mined(1, block=14), (intent("a").key,)),
            Unmined((one,)),
            Released(one, replace(mined(1, block=15), success=False)),
            Finalised((one,)),
            Disowned(two),
        ]
        expected = {one: record(1, "a"), two: record(2, "b")}
        store.claim(lease, list(expected.values()))
        for move in moves:
            store.move(lease, [], [move])
            for nonce in (one, two):
                if nonce in nonces_of(move):
                    expected[nonce] = apply(expected[nonce], move)
                assert store.record(LANE, nonce) == expected[nonce], move

    def test_records_are_found_by_state_and_depth(self, store: LaneStore) -> None:
        lease = self.lease(store)
        store.claim(lease, [record(number) for number in range(4)])
        store.move(lease, [], [Consumed(Nonce(number), mined(number, block=10 + number)) for number in range(3)])
        assert [item.nonce for item in store.records(LANE, [NonceState.MINED])] == [0, 1, 2]
        assert [item.nonce for item in store.records(LANE, [NonceState.MINED], up_to=BlockNumber(11))] == [0, 1]
        store.move(lease, [], [Finalised((Nonce(0), Nonce(1)))])
        newest = store.newest(LANE, [NonceState.MINED, NonceState.FINAL], 2, None)
        assert [item.nonce for item in newest] == [2, 1]
        assert [item.nonce for item in store.newest(LANE, [NonceState.FINAL], 9, Nonce(1))] == [0]

    def test_fees_are_summed_from_a_time_on(self, store: LaneStore) -> None:
        lease = self.lease(store)
        store.claim(lease, [record(0, at=1.0), record(1, at=5.0), record(2, at=9.0), record(3, at=9.0)])
        store.move(lease, [], [Consumed(Nonce(number), replace(mined(number), fee=HUGE)) for number in range(3)])
        assert store.spent_since(LANE, 5.0) == 2 * HUGE

    def test_fees_that_are_settled_later_or_taken_back_are_counted_once(self, store: LaneStore) -> None:
        lease = self.lease(store)
        store.claim(lease, [record(number, at=float(number)) for number in range(6)])
        for number in range(6):
            assert store.spent_since(LANE, 0.0) == 100 * number
            store.move(lease, [], [Consumed(Nonce(number), mined(number, fee=100))])
        store.move(lease, [], [Finalised((Nonce(0), Nonce(1), Nonce(3), Nonce(4)))])
        assert store.spent_since(LANE, 0.0) == 600
        assert store.spent_since(LANE, 1.0) == 500
        # A reorg deeper than finality.
        store.move(lease, [], [Unmined((Nonce(1), Nonce(4)))])
        assert store.spent_since(LANE, 1.0) == 300
        store.move(lease, [], [Consumed(Nonce(1), mined(1, fee=7)), Finalised((Nonce(1), Nonce(2)))])
        assert store.spent_since(LANE, 1.0) == 307
        store.move(lease, [], [Consumed(Nonce(4), mined(4, fee=7)), Finalised((Nonce(4), Nonce(5)))])
        assert store.spent_since(LANE, 1.0) == 314
        assert store.spent_since(LANE, 5.0) == 100
        assert store.spent_since(LANE, 9.0) == 0
        # Another process starts with nothing in mind.
        assert store.spent_since(LANE, 0.0) == 414

    # -- fencing -------------------------------------------------------------------------------------------------------

    def test_what_a_later_fence_wrote_an_earlier_one_cannot_change(self, store: LaneStore) -> None:
        store.add([intent("a")])
        stale = self.lease(store)
        store.claim(stale, [record(1, "a")])
        store.give_back(stale)
        fresh = store.take_lease(LANE, RIVAL, 60.0)
        assert fresh is not None
        sent = IntentMove((intent("a").key,), IntentState.SENT)
        store.move(fresh, [sent], [Sent((Nonce(1),), BlockNumber(3))])
        with pytest.raises(LeaseLost):
            store.move(stale, [IntentMove((intent("a").key,), IntentState.QUEUED)], [])
        with pytest.raises(LeaseLost):
            store.move(stale, [], [Disowned(Nonce(1))])
        assert store.intents([intent("a").key])[0].state is IntentState.SENT
        kept = store.record(LANE, Nonce(1))
        assert kept is not None
        assert kept.state is NonceState.OPEN
