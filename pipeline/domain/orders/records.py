"""A workerpool order of this pool, from its signature until nobody can buy from it any more. Frozen values, no I/O.

    SIGNED ──the market has it──► PUBLISHED ──► WITHDRAWN ──► ENDED
       └───────────────────────────────────────────┘     ▲
                     sold out, and that block is final ──┘

A row is stored before its order is sent anywhere, so what a crash may leave is always found again:

    crash after                       found as                       and then
    the order is stored               SIGNED, not shown              published
    `shown` is stored, or it is sent  SIGNED, shown                  the market is asked; published only if it lacks it
    the market took it                SIGNED, shown                  the market has it: PUBLISHED
    the withdrawal is stored          WITHDRAWN                      unpublished, and closed on chain
    it was unpublished                WITHDRAWN, still listed        the market no longer has it: no longer listed
    its close was handed to the lane  WITHDRAWN, closes 0            handed again under the same key: sent once

The market may drop a published order by itself, as when the pool's stake no longer covers it. So it is checked every
LOOK_SECONDS: one that the market lacks is SIGNED, shown again, and goes on as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.domain.records import CLOCKS_APART
from protocol.poco.orders import WorkerpoolOrder
from protocol.types import BlockNumber, Hash32, NRlc


class OrderStage(StrEnum):
    """How far an order is; see the module's diagram."""

    SIGNED = "signed"  #: stored here; the market may have it or not
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"  #: to be taken from the market, and closed on chain
    ENDED = "ended"  #: nobody can buy from it, or only who kept a copy of one that is not to be closed


#: Seconds until the market is asked again whether it still lists an order: a request for each of 40 orders at most, and
#: what it no longer lists is missed by buyers for no longer.
LOOK_SECONDS = 300.0

#: Longest wait until a market is asked again after it did not do what was asked, seconds.
LONGEST_WAIT = 120.0

#: Stages in which the pool wants an order to be bought.
LIVE = frozenset({OrderStage.SIGNED, OrderStage.PUBLISHED})


class Withdrawal(StrEnum):
    """Why an order is withdrawn."""

    CAPACITY = "machines cannot serve it"
    PAUSED = "the pool is paused"
    OUTAGE = "the pool holds"
    EXPIRED = "it is old and is renewed"
    POLICY = "the policy has no such offer"
    OPERATOR = "an operator cancelled it"


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """One order with what was done about it. Times are Unix seconds."""

    order_hash: Hash32
    #: Counts the pool's orders; two processes that sign at the same time choose the same number, and one of them stops.
    number: int
    order: WorkerpoolOrder
    #: Address of the market API that it is for.
    market: str
    signed_at: float
    stage: OrderStage = OrderStage.SIGNED
    #: Whether it was sent anywhere: from then on, anybody may have it. Stored before it is sent.
    shown: bool = False
    #: Whether the market may list it.
    listed: bool = False
    #: When the market last said that it lists it.
    looked_at: float = 0.0
    why: Withdrawal | None = None
    withdrawn_at: float | None = None
    #: Volume that was used or closed, as of the block that the watcher had followed.
    consumed: int = 0
    #: That block, since all of the volume was seen used; None while some is left.
    spent_block: BlockNumber | None = None
    #: Failed tries to close it on chain; the next one has a key of its own.
    closes: int = 0
    #: Requests to the market in a row without the wanted answer, what it answered, and when it is asked again.
    tries: int = 0
    says: str = ""
    retry_at: float = 0.0

    @property
    def live(self) -> bool:
        """Whether the pool wants it to be bought."""
        return self.stage in LIVE

    @property
    def remaining(self) -> int:
        """Tasks that can still be bought with it, on chain."""
        return max(0, self.order.volume - self.consumed)

    @property
    def open_to_buyers(self) -> bool:
        """Whether somebody may still buy with it though it is withdrawn: until it is closed on chain."""
        return self.stage is OrderStage.WITHDRAWN and self.shown and self.remaining > 0

    def asks(self, now: float) -> bool:
        """Whether the market is to be asked to list it, whether it does, or to list it no longer, at `now` (Unix
        seconds).
        """
        # One that is further ahead was noted by a clock that was wrong.
        if now < self.retry_at <= now + LONGEST_WAIT + CLOCKS_APART:
            return False
        match self.stage:
            case OrderStage.SIGNED:
                return True
            case OrderStage.PUBLISHED:
                return now >= self.looked_at + LOOK_SECONDS
            case OrderStage.WITHDRAWN:
                return self.listed
            case OrderStage.ENDED:
                return False

    def of(self, category: int, trust: int, tag: Hash32) -> bool:
        """Whether it is of the offer with this category, trust and tag."""
        return (self.order.category, self.order.trust, self.order.tag) == (category, trust, tag)


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign and store a new order."""

    category: int
    trust: int
    tag: Hash32
    price: NRlc
    volume: int
    market: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Have the market list an order."""

    order_hash: Hash32


@dataclass(frozen=True, slots=True)
class Recheck:
    """Ask the market whether it still lists an order."""

    order_hash: Hash32


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Note that an order is not offered any more; nothing is sent yet."""

    order_hash: Hash32
    why: Withdrawal


@dataclass(frozen=True, slots=True)
class Unpublish:
    """Have the market list an order no longer."""

    order_hash: Hash32


@dataclass(frozen=True, slots=True)
class Close:
    """Close an order on chain, for gas."""

    order_hash: Hash32


@dataclass(frozen=True, slots=True)
class End:
    """Nothing is left to do about an order."""

    order_hash: Hash32


OrderAction = Sign | Publish | Recheck | Withdraw | Unpublish | Close | End
