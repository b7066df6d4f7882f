"""What a worker's report changes in its replicate, and of which replicates it is believed."""

from __future__ import annotations

from typing import Any

from pipeline.domain.records import ReplicateState
from protocol.types import Wallet
from protocol.wire import Step

#: What a report moves a replicate to; steps that the chain proves leave the state alone.
_STATE_AFTER = {
    Step.STARTED: ReplicateState.STARTED,
    Step.COMPUTED: ReplicateState.COMPUTED,
    Step.FAILED: ReplicateState.FAILED,
}
#: From which states a report may move it: a repeated or late report changes nothing. A LOST worker that comes
#: back may continue.
_STATE_BEFORE = {
    Step.STARTED: [ReplicateState.ASSIGNED],
    Step.COMPUTED: [ReplicateState.ASSIGNED, ReplicateState.STARTED, ReplicateState.LOST],
    Step.FAILED: [ReplicateState.ASSIGNED, ReplicateState.STARTED, ReplicateState.COMPUTED, ReplicateState.LOST],
}


def expected(wallet: Wallet, step: Step) -> dict[str, Any]:
    """The query for the wallet's replicate among those of a task, if the step was not noted before."""
    replicate: dict[str, Any] = {"wallet": wallet, f"steps.{step}": {"$exists": False}}
    if step in _STATE_AFTER:
        replicate["state"] = {"$in": [str(state) for state in _STATE_BEFORE[step]]}
    return replicate


def noted(step: Step, now: float, cause: str | None, exit_code: int | None, began: float | None) -> dict[str, Any]:
    """The update of the replicate that the query found. `began`: when the machine took the task up, if it tells that
    only now. Unix seconds.
    """
    change: dict[str, Any] = {f"replicates.$.steps.{step}": now, "changed_at": now, "heard_at": now}
    if step in _STATE_AFTER:
        change["replicates.$.state"] = str(_STATE_AFTER[step])
    if cause is not None:
        change["replicates.$.cause"] = cause
    if exit_code is not None:
        change["replicates.$.exit_code"] = exit_code
    update: dict[str, Any] = {"$set": change, "$inc": {"version": 1}}
    if began is not None and step is not Step.STARTED:
        # Unless its start was reported.
        update["$max"] = {f"replicates.$.steps.{Step.STARTED}": began}
    return update
