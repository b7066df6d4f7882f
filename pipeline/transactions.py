"""Between decisions and the lane: which intents a task's transactions are, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.lane.intent import Intent, IntentState
from chain.lane.run import Lane
from pipeline.actions import Submit
from protocol.types import TaskId, Wallet

#: A lane intent that ended FAILED: task, method, try, why.
Failure = tuple[TaskId, str, int, str]


@dataclass(frozen=True, slots=True)
class Transactions:
    """Hands transactions to the scheduler's lane."""

    chain_id: int
    wallet: Wallet
    lane: Lane

    def submit(self, wanted: Sequence[tuple[TaskId, Submit]], now: float) -> tuple[int, list[Failure]]:
        """Hand over what is new or lost; returns how many, and failures that were not heard of. Raises LaneFull."""
        intents = {self._intent(task, submit, now).key: (task, submit) for task, submit in wanted}
        again = [key for key, (_, submit) in intents.items() if submit.again]
        known = self.lane.intents(again) if again else []
        failed = {intent.key: intent.reason for intent in known if intent.state is IntentState.FAILED}
        fresh = [self._intent(task, submit, now) for key, (task, submit) in intents.items() if key not in failed]
        self.lane.submit(fresh)
        failures = [
            (intents[key][0], str(intents[key][1].method), intents[key][1].generation, why)
            for key, why in failed.items()
        ]
        return len(fresh), failures

    def _intent(self, task: TaskId, submit: Submit, now: float) -> Intent:
        return Intent.new(
            self.chain_id, self.wallet, str(submit.method), task, submit.args, now, occasion=submit.generation
        )


def failures_of(ended: Sequence[Intent]) -> list[Failure]:
    """Failures among the intents that a lane run ended. Their keys carry the try (`#<occasion>`, none for 0)."""
    return [
        (TaskId(intent.subject), intent.method, int(intent.key.partition("#")[2] or 0), intent.reason)
        for intent in ended
        if intent.state is IntentState.FAILED
    ]
