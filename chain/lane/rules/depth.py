"""A transaction is sent only once the events that it relies on are some blocks deep: a small reorg cannot remove them.

    block   n-3      n-2      n-1       n = head
    deal  ──┴── here ────────────────────┴── ready here as well ─► sent, with a depth of 3
    deal             └─ here ────────────┴── ready only here ────► waits

Nothing is remembered: both blocks are asked each time, so a reorg needs no handling of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chain.lane.model.intent import Intent
from chain.lane.rules.readiness import Judgement, Moment, Readiness, ReadinessVerdict
from protocol.types import BlockNumber


class AtDepth:
    """`Readiness` that is READY only where `head` is READY now and `below` was READY `depth` blocks ago."""

    def __init__(self, head: Readiness, below: Readiness, depth: int) -> None:
        self._head = head
        self._below = below
        self._depth = depth

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        """The head's verdict for each intent; WAIT in place of READY if it was not READY `depth` blocks ago."""
        verdicts = self._head.check(intents, at)
        ready = [
            intent for intent, verdict in zip(intents, verdicts, strict=True) if verdict.judgement is Judgement.READY
        ]
        if not ready:
            return verdicts
        # The state of that block at the time of the head: deadlines pass by the clock, whatever a reorg does.
        below = replace(at, block=BlockNumber(max(0, at.block - self._depth)))
        deep = {intent.key: verdict for intent, verdict in zip(ready, self._below.check(ready, below), strict=True)}
        return [
            self._require_deep(deep[intent.key]) if intent.key in deep else verdict
            for intent, verdict in zip(intents, verdicts, strict=True)
        ]

    def _require_deep(self, deep: ReadinessVerdict) -> ReadinessVerdict:
        """The verdict for an intent that is READY at the head: READY if it was so `depth` blocks ago, else WAIT."""
        if deep.judgement is Judgement.READY:
            return deep
        return ReadinessVerdict(
            Judgement.WAIT, f"the reason for it is not {self._depth} blocks deep yet: {deep.reason}", deep.unanswered
        )
