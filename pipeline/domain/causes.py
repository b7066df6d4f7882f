"""Why a task failed or has no vote yet, in words. Pure."""

from __future__ import annotations

from collections import Counter

from pipeline.domain import enclaves, replicas
from pipeline.domain.records import ReplicateState, TaskRecord
from pipeline.domain.replicas import Timeouts
from protocol.counts import count
from protocol.poco.view import ChainView


def why_failed(task: TaskRecord, view: ChainView, timeouts: Timeouts) -> str:
    """Why a task failed, as a sentence."""
    if view.consensus is not None:
        return "The winners agreed but the task was not finalized before its final deadline."
    if view.contributions:
        return f"{count(len(view.contributions), 'vote')} brought no consensus before the deadline."
    if enclaves.lacks_challenge(task) and not task.replicates:
        return enclaves.why_never_given(task, timeouts)
    return f"Nobody contributed before the deadline: {causes(task)}."


def causes(task: TaskRecord) -> str:
    """Why there is no vote: each cause with the number of workers that gave it, most frequent first."""
    failed = [item.cause or str(item.state) for item in task.replicates if item.state is ReplicateState.FAILED]
    silent = ["silent" for item in task.replicates if item.cause == replicas.TOO_LATE]
    causes = Counter(sorted([*failed, *silent])).most_common()
    if not causes:
        return f"{len(task.replicates)} workers were asked"
    return ", ".join(f"{count} x {cause.rstrip('.')}" for cause, count in causes)
