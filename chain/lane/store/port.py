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
    """These intents take these values; `generation` None leaves theirs."""

    keys: tuple[str, ...]
    state: IntentState
    block: BlockNumber | None = None
    reason: str = ""
    generation: int | None = None


class LaneStore(Protocol):
    """Everything the lane remembers. Methods may raise the store's own connection errors."""

    # -- callers -------------------------------------------------------------------------------------------------------

    def add(self, intents: Sequence[Intent]) -> int:
        """Store intents whose key is new; put those that are DONE back to QUEUED. The number of both."""

    def intents(self, keys: Sequence[str]) -> list[Intent]:
        """The intents of these keys that exist, in any order."""

    def queued(self, lane: LaneId, limit: int, skip: int = 0) -> list[Intent]:
        """The lane's QUEUED intents, oldest first."""

    def in_state(self, lane: LaneId, states: Sequence[IntentState], limit: int) -> list[Intent]:
        """Intents in these states, oldest first; for operators' commands and sweeps."""

    def count(self, lane: LaneId, states: Sequence[IntentState]) -> int:
        """Number of intents in these states."""

    def busy(self, lane: LaneId) -> bool:
        """Whether a run could find anything to do: an intent that has not ended, or a nonce that is not FINAL."""

    # -- the lease -----------------------------------------------------------------------------------------------------

    def take_lease(self, lane: LaneId, holder: str, seconds: float) -> LaneLease | None:
        """The lease under a new fence; None while another living process has it."""

    def renew_lease(self, lease: LaneLease, seconds: float) -> None:
        """Extend the lease to `seconds` from now. Raises LeaseLost if another process took it."""

    def give_back(self, lease: LaneLease) -> None:
        """Let other processes take the lease at once. No effect if one did already."""

    def halt(self, lane: LaneId, why: str | None, lease: LaneLease | None = None) -> None:
        """Halt the lane until an operator decides (None: end the halt). Raises LeaseLost if `lease` is not the last."""

    def halted(self, lane: LaneId) -> str | None:
        """Why the lane is halted; None if it is not."""

    def wait(self, lease: LaneLease, why: str | None) -> None:
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
        """The record of this nonce."""

    def newest(self, lane: LaneId, states: Sequence[NonceState], limit: int, below: Nonce | None) -> list[NonceRecord]:
        """Records in these states, highest nonce first; with `below` only those under it."""

    def highest_nonce(self, lane: LaneId) -> Nonce | None:
        """The highest nonce that the lane ever claimed."""

    def holding(self, lane: LaneId, key: str) -> NonceRecord | None:
        """The record whose nonce carries this intent now."""

    def spent_since(self, lane: LaneId, since: float) -> Wei:
        """Fees of records claimed at Unix time `since` or later and mined. `since` grows from call to call."""

    def claim(self, lease: LaneLease, records: Sequence[NonceRecord]) -> None:
        """Insert records, ordered by nonce. Raises LeaseLost at the first that conflicts; those before it stay."""

    def move(self, lease: LaneLease, intents: Sequence[IntentMove], nonces: Sequence[NonceMove]) -> None:
        """Write the moves, intents first. Raises LeaseLost if a later fence wrote any of them."""
