"""What the three phases of a run share: the ports, the lease, and what a lane remembers between runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from chain.lane.model.intent import Intent, LaneId
from chain.lane.model.nonce import NonceRecord
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.snapshot import ChainSnapshot, Standing
from chain.lane.rules.early import EarlyGuard
from chain.lane.rules.encoding import Encoder
from chain.lane.rules.readiness import Readiness
from chain.lane.rules.send_errors import REACTIONS, Kind, Reaction
from chain.lane.signer import Signer
from chain.lane.store.lease import LaneLease
from chain.lane.store.port import LaneStore
from chain.rpc.client import JsonRpc
from protocol.types import BlockNumber, Nonce, TxHash

_NO_COUNT, _NO_BLOCK = Nonce(-1), BlockNumber(0)


@dataclass(frozen=True, slots=True)
class Missing:
    """An answer that no node gives: a receipt of a nonce that is spent, or what the contract allows."""

    #: Head when that was first seen.
    since: BlockNumber
    #: What stands in the way of knowing more.
    why: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the node answered last to a transaction that it did not accept."""

    kind: Kind
    #: The node's own.
    words: str
    tx_hash: TxHash
    #: How often these bytes were refused so.
    tries: int
    #: Head of the first refusal of this nonce in a row, whatever its bytes were, and of the last.
    since: BlockNumber
    at: BlockNumber

    def outdated(self, record: NonceRecord) -> bool:
        """Whether a node took the record's newest attempt since then: another process may have sent it."""
        if record.sent_block is None:
            return False
        return record.newest.tx_hash != self.tx_hash or record.sent_block > self.at


@dataclass(slots=True)
class Surcharge:
    """Gas that this chain charges beyond what the protocol counts, as rollups do for posting data to another chain."""

    #: Of a transfer without data.
    gas: int = 0
    #: `monotonic` when that was last asked.
    asked: float = -math.inf


@dataclass(slots=True)
class LaneMemory:
    """What a lane keeps in memory between two runs. A crash loses it, which only restarts the timeouts."""

    #: Account nonce (`latest`) last seen, and the head at which it last moved, or since which there is something for a
    #: block to take: timeouts of what waits begin there.
    count: Nonce = _NO_COUNT
    since: BlockNumber = _NO_BLOCK
    #: What the last run saw of the chain, for a run at the same head; None if it failed.
    snapshot: ChainSnapshot | None = None
    #: The newest block of ours, as the last snapshot saw it on the chain.
    standing: Standing | None = None
    #: Head of the last bump.
    bumped: BlockNumber = _NO_BLOCK
    #: Nonces that are spent although no receipt of ours is to be seen.
    missing: dict[Nonce, Missing] = field(default_factory=dict)
    #: Head at which the transaction that spent the lowest of them was last searched for.
    spender_sought: BlockNumber = _NO_BLOCK
    #: Nonces below the highest that have no record, and the head when that was first seen.
    gaps: dict[Nonce, BlockNumber] = field(default_factory=dict)
    #: Refusals after which the node certainly does not hold the transaction.
    refused: dict[Nonce, Refusal] = field(default_factory=dict)
    #: Refusals in unknown words or by a busy node: it may still have accepted the transaction.
    maybe_sent: dict[Nonce, Refusal] = field(default_factory=dict)
    surcharge: Surcharge = field(default_factory=Surcharge)
    #: What became of early steps.
    early: EarlyGuard = field(default_factory=EarlyGuard)
    #: What the node does not tell of intents that therefore wait in the queue.
    unanswered: Missing | None = None
    #: Why no new nonce is claimed, if money is short.
    short: str | None = None
    #: Since when (`monotonic`) runs break off because no node answers, and the error of the first of them.
    silent: tuple[float, str] | None = None
    #: What was last logged as the reason why the lane waits.
    alarmed: str | None = None
    #: Keys of intents that a dry run has logged.
    dry_run_logged: set[str] = field(default_factory=set)
    #: Unix time of the last warning about money.
    warned: float = 0.0

    def note_account_nonce(self, count: Nonce, head: BlockNumber) -> None:
        """Record the account nonce (`latest`) and the head at which it was read; called first in a run."""
        if count != self.count:
            self.count, self.since = count, head
        self.bumped, self.spender_sought = min(self.bumped, head), min(self.spender_sought, head)
        # A lower head means a reorg: what was noted above it was about blocks that are gone.
        self.missing = {nonce: item for nonce, item in self.missing.items() if item.since <= head}
        self.gaps = {nonce: first for nonce, first in self.gaps.items() if first <= head}

    def add_refusal(self, nonce: Nonce, kind: Kind, words: str, tx_hash: TxHash, head: BlockNumber) -> None:
        """Record that the node refused the transaction `tx_hash` of this nonce in these words, at this head."""
        before = self.refused.pop(nonce, None) or self.maybe_sent.pop(nonce, None)
        again = before is not None and before.tx_hash == tx_hash
        refusal = Refusal(
            kind,
            words,
            tx_hash,
            tries=before.tries + 1 if before is not None and again else 1,
            since=min(head, before.since) if before is not None else head,
            at=head,
        )
        (self.maybe_sent if REACTIONS[kind].maybe_sent else self.refused)[nonce] = refusal

    def refusal_of(self, nonce: Nonce) -> Refusal | None:
        """What the node last answered to this nonce's transaction, if it did not accept it."""
        return self.refused.get(nonce) or self.maybe_sent.get(nonce)

    def refusal_of_newest(self, record: NonceRecord) -> Refusal | None:
        """What the node last answered to the record's newest attempt; None also if it was not asked about that yet."""
        refusal = self.refusal_of(record.nonce)
        return None if refusal is None or refusal.tx_hash != record.newest.tx_hash else refusal

    def holds(self) -> list[Reaction]:
        """Reactions to the refusals after which no further nonce is claimed."""
        reactions = [REACTIONS[item.kind] for item in (*self.refused.values(), *self.maybe_sent.values())]
        return [reaction for reaction in reactions if reaction.hold]

    def clear_refusals(self, nonce: Nonce) -> None:
        """Forget the refusals of this nonce: the node accepted its transaction."""
        self.refused.pop(nonce, None)
        self.maybe_sent.pop(nonce, None)

    def keep_refusals_of(self, records: Mapping[Nonce, NonceRecord]) -> None:
        """Forget the refusals of nonces that are not among these open ones any more, and outdated ones."""
        for refusals in (self.refused, self.maybe_sent):
            for nonce, refusal in list(refusals.items()):
                if nonce not in records or refusal.outdated(records[nonce]):
                    del refusals[nonce]


@dataclass(frozen=True, slots=True)
class RunContext:
    """The ports and settings that every phase of a run uses (store, node, signer, rules, policy, clocks)."""

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
    #: Wei that are lost unless an intent succeeds, as far as is known when it is sent.
    worth: Callable[[Intent], int] = attrgetter("worth")
    #: Readiness in the node's pending state, for early steps (SLUICE_STATE=pending); None: nothing goes out early.
    pending_readiness: Readiness | None = None


@dataclass(slots=True)
class LeasedRun:
    """One run of a lane, with the lease that lets it write."""

    context: RunContext
    lease: LaneLease
    #: `monotonic` when the lease was last known to be ours.
    since: float
    #: Keys of intents that ended in it so far: a run that breaks off reports them too, since no later one does.
    ended: list[str] = field(default_factory=list)

    def keep_lease(self) -> None:
        """Renew the lease if half of it has passed.

        Called before each write that excludes other runs. Raises LeaseLost.
        """
        now = self.context.monotonic()
        if now - self.since > self.context.policy.lease / 2:
            self.context.store.renew_lease(self.lease, self.context.policy.lease)
            self.since = now
