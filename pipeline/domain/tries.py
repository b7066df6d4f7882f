"""How often a transaction of a task was tried, and when it is tried again. Pure.

failed because the contract refuses it      after three times it is left to the final deadline
its time limit was over before it was sent  a new try, which says nothing of the contract
claim, and the initialize that a claim      tried for ever, more and more rarely: nothing else frees the stakes
of a task that never was on chain needs
"""

from __future__ import annotations

from collections.abc import Mapping

from chain.lane.model.intent import UNTIL
from pipeline.domain.actions import Method
from pipeline.domain.records import CLOCKS_APART, TaskRecord

#: Intents of one method that may fail on one task before we leave it to the final deadline.
MAX_FAILED_INTENTS = 3
#: Seconds between two tries of what is tried for ever, once it has failed that often.
CLAIM_AGAIN = 600.0
#: Argument of an initialize: Unix seconds from which on it would bring no vote.
DEADLINE = "deadline"
#: Name under which a record counts failures of an initialize that has no deadline: it only lets the task be claimed.
TO_CLAIM = "initialize_to_claim"
#: Number of the first such try: above all numbers of tries before the deadline, whose keys the lane has already.
FIRST_TO_CLAIM = 2 * MAX_FAILED_INTENTS
#: End of the names under which a record counts tries whose time limit was over before they were sent.
_TOO_LATE = "_too_late"


def counted_as(method: str, args: Mapping[str, object], now: float) -> str:
    """The name under which a task's record counts the failure of an intent with these arguments.

    `now`: Unix seconds by the chain's time; the lane judges by a block that may be a little ahead of it.
    """
    limits = [limit for limit in (args.get(DEADLINE), args.get(UNTIL)) if isinstance(limit, int | float)]
    if any(limit <= now + CLOCKS_APART for limit in limits):
        return f"{method}{_TOO_LATE}"
    return TO_CLAIM if method == Method.INITIALIZE and DEADLINE not in args else method


def too_late(task: TaskRecord, method: Method) -> int:
    """How many tries of a method were not sent before their time limit was over."""
    return task.failed.get(f"{method}{_TOO_LATE}", 0)


def refused(task: TaskRecord, name: str) -> int:
    """How many tries have failed for another reason. `name`: a method, or TO_CLAIM."""
    return task.failed.get(name, 0)


def failed_in_all(task: TaskRecord, method: str) -> int:
    """How many tries of a method have failed, for whatever reason."""
    return sum(number for name, number in task.failed.items() if name == method or name.startswith(f"{method}_"))


def exhausted(task: TaskRecord, name: str) -> bool:
    """Whether so many tries have failed that none follows, or only after a pause. `name`: a method, or TO_CLAIM."""
    return refused(task, name) >= MAX_FAILED_INTENTS


def goes_on(name: str) -> bool:
    """Whether tries of this name go on however many have failed. `name`: a method, or TO_CLAIM."""
    return name in (Method.CLAIM, TO_CLAIM)


def pause_after(failed: int) -> float:
    """Seconds until the next try after `failed` failures, for names that go on: doubles each time, at most 80
    minutes.
    """
    return float(CLAIM_AGAIN * 2 ** min(max(failed - MAX_FAILED_INTENTS, 0), 3))
