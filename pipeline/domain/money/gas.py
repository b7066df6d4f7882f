"""What a transaction of the scheduler's wallet cost, and what for. Pure.

The wallet pays for every nonce that is spent: also for a call that the contract reverted, and for the 0-value transfer
to itself that replaces a call or fills a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.types import BlockNumber, Nonce, Wei

#: The kind of a nonce that was spent by a 0-value transfer to the wallet itself.
NO_OP = "no-op replacement"
#: The lane's name for a ready-made call: of a scheduler, those are deposits and withdrawals.
_READY_MADE = "call"
_REVERTED = " (reverted)"
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class NonceCost:
    """One transaction in a block. `fee` and `value`: wei; `at`: Unix seconds at which its nonce was claimed."""

    nonce: Nonce
    at: float
    block: BlockNumber
    fee: Wei
    value: Wei
    success: bool
    #: Whether it carried the call of its intents, rather than a no-op replacement.
    called: bool
    #: Keys of the intents that it carries, and of those that left it.
    intents: tuple[str, ...]
    #: More than 1 for the sum of a day's transactions of one kind, which are not kept one by one any more.
    count: int = 1

    @property
    def kind(self) -> str:
        """What the gas was for: `initialize`, `finalize`, `transfer` … with a mark if the contract reverted."""
        if not self.called or not self.intents:
            return NO_OP
        method = _part(self.intents[0], 2)
        name = "transfer" if method == _READY_MADE else method
        return name if self.success else name + _REVERTED

    @property
    def moved(self) -> Wei:
        """Wei that the transaction sent to others; the fee is apart."""
        return self.value if self.success and self.called else Wei(0)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subjects of its intents: the task ids, except for transfers of stake and orders."""
        return tuple(_part(key, 3).partition("#")[0] for key in self.intents)


def split_evenly(fee: int, parts: int) -> list[int]:
    """Split `fee` (wei) into `parts` whole numbers that add up to it and differ by 1 at most."""
    each, rest = divmod(fee, parts)
    return [each + (number < rest) for number in range(parts)]


def spent_and_moved(costs: Sequence[NonceCost]) -> int:
    """Wei that these transactions took from the wallet."""
    return sum(cost.fee + cost.moved for cost in costs)


def days_left(balance: int, spent: int, seconds: float) -> float | None:
    """Days for which a balance lasts, if as much is spent as was in the last `seconds`; None if nothing was spent."""
    return balance / (spent / seconds * _DAY) if spent > 0 and seconds > 0 else None


def _part(key: str, number: int) -> str:
    """A part of an intent's key `<chain>:<wallet>:<method>:<subject>[#<try>]`."""
    return key.split(":", 3)[number]
