"""What the three phases of a run share: the ports, the lease, and what a lane remembers between runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chain.lane.bundle import Encoder
from chain.lane.classify import Kind
from chain.lane.intent import LaneId
from chain.lane.lease import Lease
from chain.lane.policy import LanePolicy
from chain.lane.ready import Readiness
from chain.lane.signer import Signer
from chain.lane.store import LaneStore
from chain.rpc import JsonRpc
from protocol.types import BlockNumber, Nonce

_NO_COUNT, _NO_BLOCK = Nonce(-1), BlockNumber(0)


@dataclass(slots=True)
class Memory:
    """Patience and doubts. Losing it, in a crash, only makes the lane patient once more."""

    #: Mined count last seen, and the head at which it last moved.
    count: Nonce = _NO_COUNT
    since: BlockNumber = _NO_BLOCK
    #: Head of the last bump.
    bumped: BlockNumber = _NO_BLOCK
    #: Nonces that are spent although none of their hashes has a receipt, and the head when that was first seen.
    missing: dict[Nonce, BlockNumber] = field(default_factory=dict)
    #: Nonces below the highest that have no record, and the head when that was first seen.
    gaps: dict[Nonce, BlockNumber] = field(default_factory=dict)
    #: What the node said last about bytes it refused, and its words.
    refused: dict[Nonce, tuple[Kind, str]] = field(default_factory=dict)
    #: Head at which it said so.
    refused_at: dict[Nonce, BlockNumber] = field(default_factory=dict)
    #: Intents that a dry run has told of.
    told: set[str] = field(default_factory=set)
    #: Unix time of the last warning about money.
    warned: float = 0.0

    def see(self, count: Nonce, head: BlockNumber) -> None:
        """Take note of the mined count."""
        if count != self.count:
            self.count, self.since = count, head
        self.bumped = min(self.bumped, head)
        for doubts in (self.missing, self.gaps):
            # A head that went back says that the doubt was about another chain.
            for nonce in [nonce for nonce, first in doubts.items() if first > head]:
                del doubts[nonce]


@dataclass(frozen=True, slots=True)
class Desk:
    """The ports of one lane."""

    lane: LaneId
    store: LaneStore
    rpc: JsonRpc
    signer: Signer
    readiness: Readiness
    encoder: Encoder
    policy: LanePolicy
    #: Unix seconds.
    clock: Callable[[], float]
    #: Seconds that never jump.
    monotonic: Callable[[], float]


@dataclass(slots=True)
class Turn:
    """One run's right to write."""

    desk: Desk
    lease: Lease
    #: `monotonic` when the lease was last known to be ours.
    since: float

    def keep(self) -> None:
        """Before anything that others must not do at the same time: renew a lease past its half. Raises LeaseLost."""
        now = self.desk.monotonic()
        if now - self.since > self.desk.policy.lease / 2:
            self.desk.store.renew_lease(self.lease, self.desk.policy.lease)
            self.since = now
