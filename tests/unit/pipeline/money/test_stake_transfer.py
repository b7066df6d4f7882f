"""A deposit or withdrawal of the scheduler's stake is given to the lane once, whenever its request is cut off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from chain.lane.model.intent import UNTIL, IntentState, LaneId
from chain.lane.testing import MemoryStore
from chain.lane.transfer import Transfer
from pipeline.flow.money.stake_transfer import Stage, StakeTransfers
from pipeline.store.money.transfer_wish import WISH_SECONDS, TransferWish
from protocol.errors import NotPossible
from protocol.types import Contract, NRlc, Wallet, Wei

LANE = LaneId(1, Wallet("0x" + "aa" * 20))
SEVEN = Transfer(
    "deposit", NRlc(7), NRlc(0), NRlc(0), NRlc(9), Contract("0x" + "bb" * 20), "0x", Wei(0), 50_000, Wei(1)
)
EIGHT = replace(SEVEN, amount=NRlc(8))


class Killed(BaseException):
    """The process ends here."""


@dataclass
class Wishes:
    """The stored wish."""

    kept: TransferWish | None = None
    dies: bool = False

    def pending(self) -> TransferWish | None:
        return self.kept

    def begin(self, wish: TransferWish) -> bool:
        fresh = self.kept is None
        self.kept = self.kept or wish
        if self.dies:
            raise Killed
        return fresh

    def mark_handed(self, wish: TransferWish) -> None:
        self.kept = replace(wish, handed=True)

    def finish(self, wish: TransferWish) -> bool:
        self.kept = None
        return True


class Pool:
    """The API's side of it, with a clock."""

    def __init__(self) -> None:
        self.now, self.woken = 1_700_000_000.0, 0
        self.store, self.wishes = MemoryStore(), Wishes()
        wishes: Any = self.wishes
        self.transfers = StakeTransfers(wishes, LANE, self.store, self._wake, lambda: self.now)

    def _wake(self) -> None:
        self.woken += 1

    def intents(self) -> list[tuple[str, IntentState]]:
        return [(item.subject, item.state) for item in self.store.in_state(LANE, tuple(IntentState), 10)]


def test_a_transfer_is_handed_to_the_lane_once_and_wakes_it() -> None:
    pool = Pool()
    found, resumed = pool.transfers.begin(SEVEN)
    assert (found.stage, resumed, pool.woken) == (Stage.WAITS, False, 1)
    assert pool.transfers.begin(SEVEN)[1] is True
    assert pool.transfers.progress() is not None
    assert (pool.intents(), pool.woken) == ([("deposit-7", IntentState.QUEUED)], 1)
    (intent,) = pool.store.queued(LANE, 10)
    assert intent.args[UNTIL] == pool.now + WISH_SECONDS


def test_a_request_that_dies_before_the_lane_has_it_is_carried_on_by_the_next_one() -> None:
    pool = Pool()
    pool.wishes.dies = True
    with pytest.raises(Killed):
        pool.transfers.begin(SEVEN)
    assert pool.intents() == []
    pool.wishes.dies = False
    pool.now += 60
    found, resumed = pool.transfers.begin(SEVEN)
    assert (found.wish.begun_at, resumed) == (pool.now - 60, True)
    assert pool.intents() == [("deposit-7", IntentState.QUEUED)]


def test_looking_changes_nothing_and_the_sweep_hands_over_what_a_crash_left() -> None:
    pool = Pool()
    pool.wishes.dies = True
    with pytest.raises(Killed):
        pool.transfers.begin(SEVEN)
    for _ in range(2):
        found = pool.transfers.progress()
        assert found is not None
        assert (found.stage, found.why) == (Stage.WAITS, "the scheduler's next sweep hands it over")
    assert (pool.intents(), pool.woken) == ([], 0)
    for _ in range(2):
        pool.transfers.hand_over()
    assert (pool.intents(), pool.woken) == ([("deposit-7", IntentState.QUEUED)], 1)
    pool.transfers.wishes.finish(pool.wishes.pending() or pytest.fail("it was forgotten"))
    pool.transfers.hand_over()
    assert pool.woken == 1


def test_another_transfer_waits_until_the_first_is_over_and_told() -> None:
    pool = Pool()
    pool.transfers.begin(SEVEN)
    with pytest.raises(NotPossible, match=r"First a deposit of 0\.000000007 RLC must be over"):
        pool.transfers.begin(EIGHT)
    with pytest.raises(NotPossible, match="still under way"):
        pool.transfers.finish()
    assert pool.intents() == [("deposit-7", IntentState.QUEUED)]


def test_what_the_lane_has_never_had_within_the_hour_is_dropped_and_never_sent() -> None:
    pool = Pool()
    pool.wishes.dies = True
    with pytest.raises(Killed):
        pool.transfers.begin(SEVEN)
    pool.now += WISH_SECONDS + 1
    pool.transfers.hand_over()
    found = pool.transfers.progress()
    assert found is not None
    assert (found.stage, pool.intents()) == (Stage.DROPPED, [])
    assert pool.transfers.finish()
    assert pool.transfers.progress() is None
    assert not pool.transfers.finish()


def test_what_the_lane_had_and_lost_is_never_sent_again() -> None:
    pool = Pool()
    pool.transfers.begin(SEVEN)
    other = StakeTransfers(pool.transfers.wishes, LANE, MemoryStore(), lambda: None, lambda: pool.now)
    found = other.progress()
    assert found is not None
    assert found.stage is Stage.DROPPED
    assert "does not know it any more" in str(found.why)
