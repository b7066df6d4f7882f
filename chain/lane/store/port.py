"""The port to the lane's memory. Three stores keep it: MongoDB (scheduler), SQLite (worker), a dict (tests).

What every store promises, and one shared test suite checks:

- an intent's key is stored once; a nonce's id is inserted once; an intent is in `intents` of one nonce at most;
- what a method has written is durable when it returns;
- `claim` stores a prefix of its records, in nonce order, or all of them; never a later one without an earlier one;
- a write under a lease changes nothing that a later fence has written: it raises LeaseLost;
- within `move`, intents are written before nonces: the nonce is the log, and a crash between leaves it to be redone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chain.lane.model.intent import Intent, IntentState, LaneId
from chain.lane.model.nonce import NonceMove, NonceRecord, NonceState
from chain.lane.store.lease import LaneLease
from protocol.types import BlockNumber, Nonce, Wei


@dataclass(frozen=True, slots=True)
class IntentMove:
    """The new values of these intents; `generation` None leaves theirs as it is."""

    keys: tuple[str, ...]
    state: IntentState
    block: BlockNumber | None = None
    reason: str = ""
    generation: int | None = None


class LaneStore(Protocol):
    """Everything the lane remembers. Methods may raise the store's own connection errors."""

    # -- callers -------------------------------------------------------------------------------------------------------

    def add(self, intents: Sequence[Intent]) -> int:
        """Store intents whose key is new, and put those that are DONE back to QUEUED. Returns how many of both."""

    def intents(self, keys: Sequence[str]) -> list[Intent]:
        """The intents of these keys that exist, in any order."""

    def queued(self, lane: LaneId, limit: int, skip: int = 0) -> list[Intent]:
        """At most `limit` of the lane's QUEUED intents, oldest first; the first `skip` are left out."""

    def in_state(self, lane: LaneId, states: Sequence[IntentState], limit: int) -> list[Intent]:
        """At most `limit` intents in these states, oldest first; for operators' commands and sweeps."""

    def count(self, lane: LaneId, states: Sequence[IntentState]) -> int:
        """Number of intents in these states."""

    def busy(self, lane: LaneId) -> bool:
        """Whether a run may find anything to do: an intent that has not ended, or a nonce that is not FINAL."""

    # -- the lease -----------------------------------------------------------------------------------------------------

    def take_lease(self, lane: LaneId, holder: str, seconds: float) -> LaneLease | None:
        """Take the lane's lease for `seconds`, under the next higher fence. None: another living process holds an
        unexpired lease.

        `holder`: names this process. Each lane's run takes the lease first.
        """

    def renew_lease(self, lease: LaneLease, seconds: float) -> None:
        """Extend the lease to `seconds` from now. Raises LeaseLost if another process took it."""

    def give_back(self, lease: LaneLease) -> None:
        """End the lease before its time, so that another process can take it. No effect if one has it already."""

    def halt(self, lane: LaneId, why: str | None, lease: LaneLease | None = None) -> None:
        """Halt the lane for the reason `why` until an operator ends that, or end the halt (None).

        Raises LeaseLost if a newer lease than `lease` was given out.
        """

    def halted(self, lane: LaneId) -> str | None:
        """Why the lane is halted; None if it is not."""

    def set_waiting(self, lease: LaneLease, why: str | None) -> None:
        """Record what the lane waits for and cannot repair (None: nothing), for logs and `sluice tx ls`.

        Raises LeaseLost.
        """

    def waiting(self, lane: LaneId) -> str | None:
        """What the lane waits for and cannot repair; None if nothing."""

    # -- nonces --------------------------------------------------------------------------------------------------------

    def records(
        self, lane: LaneId, states: Sequence[NonceState], up_to: BlockNumber | None = None
    ) -> list[NonceRecord]:
        """Records in these states by nonce; with `up_to` only those mined in that block or below."""

    def record(self, lane: LaneId, nonce: Nonce) -> NonceRecord | None:
        """The record of this nonce; None if there is none."""

    def newest(self, lane: LaneId, states: Sequence[NonceState], limit: int, below: Nonce | None) -> list[NonceRecord]:
        """At most `limit` records in these states, highest nonce first; with `below` only those under it."""

    def highest_nonce(self, lane: LaneId) -> Nonce | None:
        """The highest nonce that the lane ever claimed; None if it has claimed none."""

    def holding(self, lane: LaneId, key: str) -> NonceRecord | None:
        """The record of the nonce that this intent (by its key) is sent with now; None if it has no nonce."""

    def spent_since(self, lane: LaneId, since: float) -> Wei:
        """Wei of fees of the nonces that were claimed at Unix time `since` or later and are in a block. `since` grows
        from call to call.
        """

    def claim(self, lease: LaneLease, records: Sequence[NonceRecord]) -> None:
        """Insert the records of new nonces, ordered by nonce. Raises LeaseLost at the first that conflicts (its nonce
        or one of its intents has a record already); those before it stay.
        """

    def move(self, lease: LaneLease, intents: Sequence[IntentMove], nonces: Sequence[NonceMove]) -> None:
        """Write the moves, intents first. Raises LeaseLost if a later fence wrote any of them."""
