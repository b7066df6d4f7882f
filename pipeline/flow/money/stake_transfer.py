"""A deposit or withdrawal of the scheduler's stake: handed to the scheduler's lane, which alone signs, and followed.

The request that begins it hands it to the lane; if that was cut off, the next sweep does. Reading it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from chain.lane.model.intent import IntentState, LaneId
from chain.lane.store.port import LaneStore
from chain.lane.transfer import Transfer
from pipeline.store.money.transfer_wish import WISH_SECONDS, TransferWish, TransferWishes
from protocol.amounts import rlc
from protocol.errors import NotPossible
from protocol.types import BlockNumber, TxHash, Wei


class Stage(StrEnum):
    """How far a transfer is."""

    WAITS = "waits for the lane"
    SENT = "sent"
    MADE = "made"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Progress:
    """A transfer, and what became of it. `fee`: wei of gas."""

    wish: TransferWish
    stage: Stage
    tx: TxHash | None = None
    block: BlockNumber | None = None
    fee: Wei | None = None
    #: Why it waits or was dropped.
    why: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended: made, or dropped. Only a reorg can change it after that."""
        return self.stage in (Stage.MADE, Stage.DROPPED)


@dataclass(frozen=True, slots=True)
class StakeTransfers:
    """The transfers of one scheduler. `notify`: wakes the lane; `clock`: Unix seconds."""

    wishes: TransferWishes
    lane: LaneId
    lane_store: LaneStore
    notify: Callable[[], None]
    clock: Callable[[], float]

    def begin(self, transfer: Transfer) -> tuple[Progress, bool]:
        """Hand a transfer to the lane, or follow the equal one that is under way.

        Returns its progress, and whether it was begun before. Raises NotPossible while another one is under way.
        """
        fresh = self.wishes.begin(TransferWish.of(transfer, self.clock()))
        self.hand_over()
        found = self.progress()
        if found is None:
            raise NotPossible(what="Another operator has just ended this transfer: ask again if you still want it.")
        if (found.wish.direction, found.wish.amount) != (transfer.direction, transfer.amount):
            other = f"a {found.wish.direction} of {rlc(found.wish.amount)} RLC"
            raise NotPossible(what=f"First {other} must be over, which was begun before.")
        return found, not fresh

    def hand_over(self) -> None:
        """Hand the stored transfer to the lane, if the lane has not had it and its hour is not over."""
        wish = self.wishes.pending()
        if wish is None or wish.handed:
            return
        intent = wish.intent(self.lane)
        if not self.lane_store.intents([intent.key]):
            if self._overdue(wish):
                return
            self.lane_store.add([intent])
        self.wishes.mark_handed(wish)
        self.notify()

    def progress(self) -> Progress | None:
        """The transfer that is under way; None if there is none."""
        wish = self.wishes.pending()
        if wish is None:
            return None
        intent = wish.intent(self.lane)
        known = next(iter(self.lane_store.intents([intent.key])), None)
        if known is None:
            if not wish.handed and not self._overdue(wish):
                return Progress(wish, Stage.WAITS, why="the scheduler's next sweep hands it over")
            why = "the lane does not know it any more" if wish.handed else "it was never sent, and its hour is over"
            return Progress(wish, Stage.DROPPED, why=f"{why}. Look at the stake, and ask again if you want it")
        match known.state:
            case IntentState.QUEUED:
                why_not = self.lane_store.halted(self.lane) or self.lane_store.waiting(self.lane)
                return Progress(wish, Stage.WAITS, why=why_not or known.reason or None)
            case IntentState.MINED | IntentState.FINAL:
                record = self.lane_store.holding(self.lane, intent.key)
                mined = None if record is None else record.mined
                if mined is not None:
                    return Progress(wish, Stage.MADE, mined.tx_hash, mined.block, mined.fee)
                return Progress(wish, Stage.SENT)
            case IntentState.SENT:
                return Progress(wish, Stage.SENT)
            case _:
                return Progress(wish, Stage.DROPPED, why=known.reason or "it was given up")

    def _overdue(self, wish: TransferWish) -> bool:
        """Whether the transfer was begun so long ago that it is given up."""
        return self.clock() - wish.begun_at > WISH_SECONDS

    def finish(self) -> bool:
        """Forget a transfer that is over, once its outcome was reported. False: there is none. Raises NotPossible while
        it is under way.
        """
        found = self.progress()
        if found is None:
            return False
        if not found.over:
            raise NotPossible(what=f"The {found.wish.direction} is still under way: {found.stage}.")
        return self.wishes.finish(found.wish)
