"""The port that says whether an intent would succeed now. The contract itself is asked, right before the first send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from chain.lane.model.intent import Intent
from protocol.types import BlockNumber, Timestamp


class Judgement(StrEnum):
    """Whether an intent may be sent."""

    READY = "ready"
    #: Not yet, but maybe later: stays in the queue.
    WAIT = "wait"
    #: The chain is already in the state it asks for.
    DONE = "done"
    #: Never.
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class ReadinessVerdict:
    """A judgement and, unless READY, its reason in words."""

    judgement: Judgement
    reason: str = ""
    #: Whether it is WAIT only because the node does not answer: nothing follows from it.
    unanswered: bool = False


READY = ReadinessVerdict(Judgement.READY)


@dataclass(frozen=True, slots=True)
class Moment:
    """The block a verdict is about."""

    block: BlockNumber
    #: Its time, Unix seconds.
    timestamp: Timestamp


class Readiness(Protocol):
    """Judges intents by the chain's state at one block."""

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        """A verdict for each intent, in order.

        Where the node answers a view by an error, by nothing or by what cannot be read, the verdict is an `unanswered`
        WAIT; only a reveal, which saves a stake, is READY then, unless it has reverted before. Raises RpcUnavailable.
        """


class AlwaysReady:
    """For calls that have no precondition."""

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:  # noqa: ARG002 - the port's signature
        """READY for each intent."""
        return [READY] * len(intents)
