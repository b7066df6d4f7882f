"""Between decisions and the lane: which intents a task's transactions are, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chain.lane.model.intent import Intent, IntentState
from chain.lane.run import Lane
from pipeline.domain.actions import Action, Method, Submit
from pipeline.domain.tries import counted_as
from protocol.types import TaskId, Wallet

#: Transactions in the lane's queue above which no more initializes are added: many deals at a time must not delay other
#: tasks' finalize and claim, nor fill the lane. One large deal has less capacity (`pipeline.bulk`).
MOST_WITH_INITIALIZE = 2000
#: Transactions queued or in flight above which no further one without a deadline is added: more initializes of large
#: deals, and what unlocks the stakes of expired tasks. 4 batches of 50 leave space for others in a block of 30 M gas;
#: with 8 a small deal behind a bag of 100,000 was initialized after 4 blocks, with 4 after 1 to 3 (`bench bag`).
BULK_CAPACITY = 200
#: Of tasks.
_METHODS = frozenset(str(method) for method in Method)


class FailedIntent(NamedTuple):
    """A lane intent of a task that ended FAILED."""

    task: TaskId
    method: str
    #: The number of the try.
    generation: int
    #: The name under which the task's record counts it (`pipeline.domain.tries`).
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Transactions:
    """Hands transactions to the scheduler's lane."""

    chain_id: int
    wallet: Wallet
    lane: Lane

    def submit(
        self, wanted: Sequence[tuple[TaskId, Submit]], now: float, block_time: float
    ) -> tuple[int, list[FailedIntent]]:
        """Store the intents of these transactions in the lane, unless it has them. `now`, `block_time`: Unix seconds by
        this machine's clock and by the chain.

        Returns how many were handed over, and the failed ones that the tasks' records do not have yet. Raises LaneFull.
        """
        intents = {self._intent(task, submit, now).key: (task, submit) for task, submit in wanted}
        again = [key for key, (_, submit) in intents.items() if submit.again]
        known = self.lane.intents(again) if again else []
        failed = {intent.key: intent for intent in known if intent.state is IntentState.FAILED}
        fresh = [self._intent(task, submit, now) for key, (task, submit) in intents.items() if key not in failed]
        self.lane.submit(fresh)
        return len(fresh), failures_of([*failed.values()], block_time)

    def key(self, task: TaskId, method: str, generation: int) -> str:
        """Key of the intent of a task's transaction in its try `generation`."""
        return Intent.new(self.chain_id, self.wallet, method, task, occasion=generation).key

    def queued(self) -> int:
        """How many transactions wait for a nonce."""
        return self.lane.context.store.count(self.lane.id, (IntentState.QUEUED,))

    def open(self) -> int:
        """How many transactions wait for a nonce or are in flight."""
        return self.lane.context.store.count(self.lane.id, (IntentState.QUEUED, IntentState.SENT))

    def _intent(self, task: TaskId, submit: Submit, now: float) -> Intent:
        """The lane's intent of a decided transaction."""
        return Intent.new(
            self.chain_id, self.wallet, str(submit.method), task, submit.args, now, occasion=submit.generation
        )


def initializes(actions: Sequence[Action]) -> bool:
    """Whether one of the actions hands over an initialize."""
    return any(isinstance(action, Submit) and action.method is Method.INITIALIZE for action in actions)


def without_initialize(actions: Sequence[Action]) -> list[Action]:
    """The actions without initialize, which is decided again when the lane has capacity."""
    return [item for item in actions if not (isinstance(item, Submit) and item.method is Method.INITIALIZE)]


def of_expired(actions: Sequence[Action], *, voting: bool) -> list[Submit]:
    """Transactions that only unlock the stakes of a task that takes no more votes; `voting`: it still takes some."""
    return [
        item
        for item in actions
        if isinstance(item, Submit)
        and (item.method is Method.CLAIM or (item.method is Method.INITIALIZE and not voting))
    ]


def failures_of(ended: Sequence[Intent], now: float) -> list[FailedIntent]:
    """Failures of tasks among these intents, which have ended; deposits, withdrawals and orders are of none. Their keys
    carry the try (`#<occasion>`, none for 0). `now`: Unix seconds by the chain's time.
    """
    return [
        FailedIntent(
            TaskId(intent.subject),
            intent.method,
            int(intent.key.partition("#")[2] or 0),
            counted_as(intent.method, intent.args, now),
            intent.reason,
        )
        for intent in ended
        if intent.state is IntentState.FAILED and intent.method in _METHODS
    ]
