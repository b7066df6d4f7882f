"""Whether steps may still go out early, that is behind a transaction that is not in a block yet. Pure.

    an early step ends      ─► it succeeded, or came too early and reverted
    more than SHARE of the last WINDOW reverted ─► none goes out early for PAUSE blocks, each time twice as long
    a WINDOW without revert ─► the next pause is a short one again

Where transactions are not ordered as `chain.lane.rules.order` expects, that costs a few reverts now and then;
otherwise the lane works there as with SLUICE_STATE=latest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocol.types import BlockNumber

#: Early steps whose outcome is remembered.
WINDOW = 50
#: The part of them that may revert, and how many may whatever the part: one reorg or a block that was cut off between
#: two steps says nothing yet.
SHARE, LEAST = 0.1, 2
#: Blocks of the first pause, and of the longest: on a chain of 1 s blocks two minutes, and half a day.
PAUSE, LONGEST = 128, 32_768
#: Blocks for which the pending state is not asked for after a question that failed: a node that hangs would cost each
#: run its time-out, reveals included.
UNKNOWN_PAUSE = 16


@dataclass(frozen=True, slots=True)
class EarlyGuard:
    """How the last early steps ended, and from which block on more may go out. Values never change; see `after`."""

    #: Of the last early steps, oldest first, whether each succeeded.
    ended: tuple[bool, ...] = ()
    #: First block at whose head steps may go out early again.
    opens_at: BlockNumber = BlockNumber(0)  # noqa: RUF009 - a NewType call has no state
    #: Pauses since a whole window went well.
    pauses: int = 0

    def is_open(self, head: BlockNumber) -> bool:
        """Whether steps may go out early at this head."""
        return head >= self.opens_at

    def unanswered(self, head: BlockNumber) -> EarlyGuard:
        """The guard after a question about the pending state that failed at `head`: closed for some blocks."""
        return replace(self, opens_at=BlockNumber(max(self.opens_at, head + UNKNOWN_PAUSE)))

    def after(self, succeeded: int, reverted: int, head: BlockNumber) -> EarlyGuard:
        """The guard with so many more ended early steps; begins a pause at `head` if too many of the last reverted."""
        if not self.is_open(head):
            # They went out before the pause, which is for the same cause.
            return self
        ended = (*self.ended, *(True,) * succeeded, *(False,) * reverted)[-WINDOW:]
        failures = ended.count(False)
        if reverted and failures > max(LEAST, SHARE * len(ended)):
            length = min(LONGEST, PAUSE << self.pauses)
            return EarlyGuard(opens_at=BlockNumber(head + length), pauses=min(self.pauses + 1, 16))
        well = len(ended) == WINDOW and not failures
        return replace(self, ended=ended, pauses=0 if well else self.pauses)
