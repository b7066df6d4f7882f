"""What a worker's report changes in its replicate, and in which states of the replicate it is accepted."""

from __future__ import annotations

from typing import Any

from pipeline.domain.progress import SOONEST_VISIT
from pipeline.domain.records import ReplicateState, Standing
from protocol.types import Wallet
from protocol.wire import Mode, Step

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
    """The update of the replicate that the query found, by the filters of `own`. `began`: when the machine took the
    task up, if it tells that only now. Unix seconds.
    """
    change: dict[str, Any] = {f"replicates.$[own].steps.{step}": now, "changed_at": now, "heard_at": now}
    if step in _STATE_AFTER:
        change["replicates.$[own].state"] = str(_STATE_AFTER[step])
    if cause is not None:
        change["replicates.$[own].cause"] = cause
    if exit_code is not None:
        change["replicates.$[own].exit_code"] = exit_code
    if _may_free(step, cause):
        change |= {"replicates.$[freed].holds_slot": False, "replicates.$[freed].pledged": True}
    later: dict[str, float] = {}
    if began is not None and step is not Step.STARTED:
        # Unless its start was reported.
        later[f"replicates.$[own].steps.{Step.STARTED}"] = began
    if _may_free(step, cause):
        # Where nothing else is decided now, its vote is waited for first.
        later["next_visit"] = now + SOONEST_VISIT
    update: dict[str, Any] = {"$set": change, "$inc": {"version": 1}}
    return update | {"$max": later} if later else update


def own(wallet: Wallet, step: Step, cause: str | None) -> list[dict[str, Any]]:
    """The filters by which `noted` finds the replicate, and whether the report frees its slot as
    `pipeline.domain.decide.frees_slot` says.
    """
    filters: list[dict[str, Any]] = [{"own.wallet": wallet}]
    if _may_free(step, cause):
        less = [int(standing) for standing in Standing if standing is not Standing.PROVEN]
        live = [str(ReplicateState.ASSIGNED), str(ReplicateState.STARTED)]
        alone = {"freed.wallet": wallet, "freed.mode": str(Mode.SOLO), "freed.state": {"$in": live}}
        # Fields that rows of a release before lack are as in `Replicate`.
        filters.append({**alone, "freed.standing": {"$nin": less}, "freed.holds_slot": {"$ne": False}})
    return filters


def _may_free(step: Step, cause: str | None) -> bool:
    """Whether a report may give a slot back, judged by the report alone."""
    return step is Step.COMPUTED and cause is None
