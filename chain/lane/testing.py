"""A store that keeps everything in dicts: for tests of code that uses the lane, and fast models of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from chain.lane.model.intent import UNENDED, Intent, IntentState, LaneId
from chain.lane.model.nonce import UNSETTLED, NonceMove, NonceRecord, NonceState, apply, nonces_of
from chain.lane.store.lease import LaneLease, holder_is_dead
from chain.lane.store.port import IntentMove
from protocol.errors import LeaseLost
from protocol.types import BlockNumber, Nonce, Wei


class MemoryStore:
    """`LaneStore` in memory. One process, one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._intents: dict[str, Intent] = {}
        self._intent_fences: dict[str, int] = {}
        self._records: dict[LaneId, dict[Nonce, NonceRecord]] = {}
        self._record_fences: dict[tuple[LaneId, Nonce], int] = {}
        self._leases: dict[LaneId, tuple[LaneLease, float]] = {}
        self._halts: dict[LaneId, str] = {}
        self._waits: dict[LaneId, str] = {}

    # -- callers -------------------------------------------------------------------------------------------------------

    def add(self, intents: Sequence[Intent]) -> int:
        """Store intents whose key is new; put those that are DONE back to QUEUED. The number of both."""
        added = 0
        for intent in intents:
            known = self._intents.get(intent.key)
            if known is None:
                self._intents[intent.key] = intent
                self._intent_fences[intent.key] = 0
            elif known.state is IntentState.DONE:
                self._intents[intent.key] = replace(known, state=IntentState.QUEUED, reason="")
            else:
                continue
            added += 1
        return added

    def intents(self, keys: Sequence[str]) -> list[Intent]:
        """The intents of these keys that exist, in any order."""
        return [self._intents[key] for key in keys if key in self._intents]

    def queued(self, lane: LaneId, limit: int, skip: int = 0) -> list[Intent]:
        """The lane's QUEUED intents, oldest first."""
        return self.in_state(lane, [IntentState.QUEUED], skip + limit)[skip:]

    def in_state(self, lane: LaneId, states: Sequence[IntentState], limit: int) -> list[Intent]:
        """The lane's intents in these states, oldest first."""
        found = [intent for intent in self._intents.values() if intent.lane == lane and intent.state in states]
        return sorted(found, key=lambda intent: (intent.created_at, intent.key))[:limit]

    def count(self, lane: LaneId, states: Sequence[IntentState]) -> int:
        """Number of the lane's intents in these states."""
        return len(self.in_state(lane, states, len(self._intents)))

    def busy(self, lane: LaneId) -> bool:
        """Whether a run could find anything to do: an intent that has not ended, or a nonce that is not FINAL."""
        return bool(self.count(lane, UNENDED) or self.records(lane, UNSETTLED))

    # -- the lease -----------------------------------------------------------------------------------------------------

    def take_lease(self, lane: LaneId, holder: str, seconds: float) -> LaneLease | None:
        """Take the lane's lease for `seconds`, under the next higher fence. None: another living process holds an
        unexpired lease.
        """
        held, until = self._leases.get(lane, (None, 0.0))
        if held is not None and until > self._clock() and not holder_is_dead(held.holder):
            return None
        lease = LaneLease(lane, holder, held.fence + 1 if held else 1, self._halts.get(lane), self._waits.get(lane))
        self._leases[lane] = (lease, self._clock() + seconds)
        return lease

    def renew_lease(self, lease: LaneLease, seconds: float) -> None:
        """Extend the lease to `seconds` from now. Raises LeaseLost."""
        self._check_last(lease)
        self._leases[lease.lane] = (lease, self._clock() + seconds)

    def give_back(self, lease: LaneLease) -> None:
        """End the lease before its time, so that another process can take it."""
        if self._leases[lease.lane][0].fence == lease.fence:
            self._leases[lease.lane] = (lease, self._clock())

    def halt(self, lane: LaneId, why: str | None, lease: LaneLease | None = None) -> None:
        """Halt the lane until an operator decides (None: end the halt). Raises LeaseLost."""
        if lease is not None:
            self._check_last(lease)
        self._set_note(self._halts, lane, why)

    def halted(self, lane: LaneId) -> str | None:
        """Why the lane is halted; None if it is not."""
        return self._halts.get(lane)

    def set_waiting(self, lease: LaneLease, why: str | None) -> None:
        """Record what the lane waits for and cannot repair (None: nothing). Raises LeaseLost."""
        self._check_last(lease)
        self._set_note(self._waits, lease.lane, why)

    def waiting(self, lane: LaneId) -> str | None:
        """What the lane waits for and cannot repair; None if nothing."""
        return self._waits.get(lane)

    def _check_last(self, lease: LaneLease) -> None:
        """Raise LeaseLost unless `lease` has the lane's last fence."""
        last = self._leases[lease.lane][0].fence
        if last != lease.fence:
            raise LeaseLost(wallet=lease.lane.wallet, fence=last)

    @staticmethod
    def _set_note(notes: dict[LaneId, str], lane: LaneId, why: str | None) -> None:
        """Set a lane's entry in `notes`; None removes it."""
        if why is None:
            notes.pop(lane, None)
        else:
            notes[lane] = why

    # -- nonces --------------------------------------------------------------------------------------------------------

    def records(
        self, lane: LaneId, states: Sequence[NonceState], up_to: BlockNumber | None = None
    ) -> list[NonceRecord]:
        """Records in these states, lowest nonce first; with `up_to` only those mined in that block or below."""
        found = [record for record in self._records.get(lane, {}).values() if record.state in states]
        if up_to is not None:
            found = [record for record in found if record.mined is not None and record.mined.block <= up_to]
        return sorted(found, key=lambda record: record.nonce)

    def record(self, lane: LaneId, nonce: Nonce) -> NonceRecord | None:
        """The record of this nonce; None if there is none."""
        return self._records.get(lane, {}).get(nonce)

    def newest(self, lane: LaneId, states: Sequence[NonceState], limit: int, below: Nonce | None) -> list[NonceRecord]:
        """Records in these states, highest nonce first; with `below` only those under it."""
        found = [record for record in self.records(lane, states) if below is None or record.nonce < below]
        return found[::-1][:limit]

    def highest_nonce(self, lane: LaneId) -> Nonce | None:
        """The highest nonce that the lane ever claimed."""
        return max(self._records.get(lane, {}), default=None)

    def holding(self, lane: LaneId, key: str) -> NonceRecord | None:
        """The record of the nonce that this intent (by its key) is sent with now; None if it has no nonce."""
        return next((record for record in self._records.get(lane, {}).values() if key in record.intents), None)

    def spent_since(self, lane: LaneId, since: float) -> Wei:
        """Fees in wei of nonces claimed at Unix time `since` or later and mined."""
        records = self._records.get(lane, {}).values()
        return Wei(sum(record.mined.fee for record in records if record.mined and record.created_at >= since))

    def claim(self, lease: LaneLease, records: Sequence[NonceRecord]) -> None:
        """Insert the records of new nonces, lowest first. Raises LeaseLost at the first whose nonce or intent has a
        record already; those before it stay.
        """
        own = self._records.setdefault(lease.lane, {})
        for record in records:
            taken = any(self.holding(lease.lane, key) for key in record.intents)
            if record.nonce in own or taken:
                raise LeaseLost(wallet=lease.lane.wallet, fence=lease.fence)
            own[record.nonce] = record
            self._record_fences[lease.lane, record.nonce] = lease.fence

    def move(self, lease: LaneLease, intents: Sequence[IntentMove], nonces: Sequence[NonceMove]) -> None:
        """Write the moves, intents first. Raises LeaseLost if a later fence wrote any of them."""
        for move in intents:
            for key in move.keys:
                self._check_fence(lease, self._intent_fences[key])
                known = self._intents[key]
                generation = known.generation if move.generation is None else move.generation
                self._intents[key] = replace(
                    known, state=move.state, block=move.block, reason=move.reason, generation=generation
                )
                self._intent_fences[key] = lease.fence
        for change in nonces:
            for nonce in nonces_of(change):
                self._check_fence(lease, self._record_fences[lease.lane, nonce])
                self._records[lease.lane][nonce] = apply(self._records[lease.lane][nonce], change)
                self._record_fences[lease.lane, nonce] = lease.fence

    @staticmethod
    def _check_fence(lease: LaneLease, fence: int) -> None:
        """Raise LeaseLost if what is to be written has a later fence."""
        if fence > lease.fence:
            raise LeaseLost(wallet=lease.lane.wallet, fence=fence)
