"""An intent: one logical action on the chain ("finalize this task"), stored once, before it has a nonce.

submit ─► QUEUED ─nonce─► SENT ─block─► MINED ─depth─► FINAL          the call succeeded
            ▲  │            ▲  ◄──reorg──┘ │
            │  │            └──────────────┼─ same signed bytes again
            │  ├─ already so on chain ─► DONE   nothing had to be sent, or another wallet did it
            │  └─ cannot succeed ──────► FAILED `reason` says why in words
            └──────── released ◄───────────┘    reverted or cancelled: judged again, at most 3 times
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from protocol.types import BlockNumber, Wallet


class IntentState(StrEnum):
    """How far an intent is; see the module's diagram."""

    #: Waits for a nonce.
    QUEUED = "queued"
    #: Holds a nonce whose signed bytes are stored; they may or may not have reached a node.
    SENT = "sent"
    #: A transaction that carries it succeeded in a block that a reorg can still remove.
    MINED = "mined"
    #: That block is deep enough.
    FINAL = "final"
    #: The chain is already in the state it asks for.
    DONE = "done"
    #: It can never succeed, or was given up; `reason` says why.
    FAILED = "failed"


#: States an intent never leaves by itself.
ENDED = frozenset({IntentState.FINAL, IntentState.DONE, IntentState.FAILED})
#: States that a run may have to do something about.
UNENDED = (IntentState.QUEUED, IntentState.SENT, IntentState.MINED)


#: Method of a ready-made call.
READY_MADE = "call"
#: Argument: wallets, separated by commas, behind whose transactions it may go out before those are in a block.
BEHIND = "behind"
#: Argument: Unix seconds after which an intent without a nonce is not sent any more.
UNTIL = "until"


@dataclass(frozen=True, slots=True)
class LaneId:
    """One wallet on one chain: the unit that has one line of nonces."""

    chain_id: int
    wallet: Wallet

    def __str__(self) -> str:
        return f"{self.chain_id}:{self.wallet}"


@dataclass(frozen=True, slots=True)
class Intent:
    """One action under a unique key. Calldata is made from `args` when it gets its nonce, not before."""

    #: `<chain>:<wallet>:<method>:<subject>`, with `#<occasion>` if the same action may be needed more than once.
    key: str
    lane: LaneId
    #: PoCo function (`initialize`, `contribute` …), or `call` for a ready-made call.
    method: str
    #: What it is about: a task id for every PoCo function about tasks.
    subject: str
    #: JSON arguments of the function besides the subject; names in `chain.lane.rules.encoding`.
    args: Mapping[str, object]
    #: Unix seconds; intents get their nonces in this order.
    created_at: float
    state: IntentState = IntentState.QUEUED
    #: How often it was released from a nonce. From 1 on it travels alone.
    generation: int = 0
    #: Block that mined it, while MINED or FINAL.
    block: BlockNumber | None = None
    #: Why it is DONE, FAILED or back in the queue.
    reason: str = field(default="", compare=False)

    @classmethod
    def new(
        cls,
        chain_id: int,
        wallet: Wallet,
        method: str,
        subject: str,
        args: Mapping[str, object] | None = None,
        now: float = 0.0,
        *,
        occasion: int = 0,
    ) -> Intent:
        """A fresh intent at Unix time `now`. `occasion` tells repetitions apart (say, the block that made it due)."""
        lane = LaneId(chain_id, wallet)
        suffix = f"#{occasion}" if occasion else ""
        return cls(f"{lane}:{method}:{subject}{suffix}", lane, method, subject, dict(args or {}), now)

    @property
    def worth(self) -> int:
        """Wei that are lost unless it succeeds, from the argument `worth`: up to so much may be paid for it."""
        return int(str(self.args.get("worth", 0)))

    def overdue(self, now: float) -> bool:
        """Whether the intent's own time limit (its argument UNTIL) is over, so that it is never sent. `now`: Unix
        seconds.
        """
        until = self.args.get(UNTIL)
        return isinstance(until, (int, float)) and now > until

    @property
    def ended(self) -> bool:
        """Whether the intent is in a final state: no run does anything about it any more."""
        return self.state in ENDED

    @property
    def alone(self) -> bool:
        """Whether the intent must have a transaction of its own, because the bundle that it was in failed."""
        return self.generation > 0


def method_of(keys: tuple[str, ...]) -> str:
    """The contract method of intents that share a nonce, as a metric label; `none` for a nonce without intents."""
    return keys[0].split(":")[2] if keys else "none"
