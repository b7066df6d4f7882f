"""What an open task waits for, in words, from the same functions that decide and match. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from pipeline.domain import replicas, tries
from pipeline.domain.actions import Method
from pipeline.domain.causes import causes
from pipeline.domain.enclaves import awaits_challenge, lacks_challenge, why_unserved, why_waiting
from pipeline.domain.match import Capacity, Obstacle, for_proven, had, obstacle, stake_locked
from pipeline.domain.records import MOST_NEWCOMERS, ReplicateState, TaskRecord, WorkerRecord
from pipeline.domain.replicas import Timeouts
from protocol.counts import count
from protocol.poco.seal import result_hash
from protocol.poco.tags import framework, needs_gpu
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.types import NRlc, TaskId

#: The sentence about a task that is not initialized before a machine can serve it.
_POSTPONED = "It is not initialized before somebody can serve its tag, as that costs gas."


class Kind(NamedTuple):
    """What decides which machines can take a task: tasks of one kind wait for the same."""

    tag: str
    #: nRLC that a vote locks.
    stake: NRlc
    #: Whether only machines that were right on chain may be given it.
    proven: bool
    #: Whether it is for an enclave and has no challenge, so that no machine is given it.
    unserved: bool

    @classmethod
    def of(cls, task: TaskRecord) -> Kind:
        """The kind of a task."""
        return cls(task.tag, stake_locked(task), for_proven(task), lacks_challenge(task))


@dataclass(frozen=True, slots=True)
class Candidates:
    """Machines and what keeps each from tasks of one kind, computed once for all of these tasks.

    `found`: the obstacle of each (None: it can take such a task; having had one already is left out); nearest first.
    """

    found: tuple[tuple[Obstacle | None, Capacity], ...] = ()

    @classmethod
    def of(cls, task: TaskRecord, workers: Iterable[WorkerRecord], now: float, seen_after: float) -> Candidates:
        """The candidates for tasks of the same kind as `task`.

        `now`: Unix seconds; a machine last seen before `seen_after` counts as lost.
        """
        other = replace(task, task_id=TaskId(""), replicates=(), backup=for_proven(task), newcomers=MOST_NEWCOMERS)
        capacities = (Capacity.of(replace(item, lost=item.lost or item.seen_at < seen_after)) for item in workers)
        found = [(obstacle(other, capacity, now), capacity) for capacity in capacities]
        return cls(tuple(sorted(found, key=_distance)))

    def nearest(self, task: TaskRecord) -> tuple[Obstacle | None, Capacity] | None:
        """The obstacle of the machine that is nearest to taking the task, and that machine; None without machines."""
        asked = None
        for stands, capacity in self.found:
            if (stands is None or stands > Obstacle.ASKED) and had(task, capacity.worker):
                asked = asked or (Obstacle.ASKED, capacity)
            elif asked and stands is not None and stands < Obstacle.ASKED:
                break
            else:
                return stands, capacity
        return asked


def _distance(found: tuple[Obstacle | None, Capacity]) -> tuple[float, float, int]:
    """Orders candidates, the nearest first: of those that cool down who is free soonest, else who has most stake."""
    stands, capacity = found
    free_at = capacity.worker.rest_until if stands is Obstacle.COOLING_DOWN else 0.0
    return (-float("inf") if stands is None else -stands, free_at, -capacity.stake)


def explain(
    task: TaskRecord,
    view: ChainView,
    candidates: Candidates,
    now: float,
    timeouts: Timeouts,
    *,
    paused: bool = False,
    holding: str | None = None,
    lane: str | None = None,
) -> str | None:
    """What the task waits for; None if it is over. `candidates`: of its kind; `now`: Unix seconds; `paused`: the
    operator has paused the pool; `holding`: why the pool holds, if it does; `lane`: a sentence that says why the
    scheduler's lane sends nothing, if it does not.
    """
    if not task.open:
        return None
    if view.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        return f"The chain has it {view.status.name}; the scheduler has still to note that (`sluice queue ls`)."
    if task.orphaned:
        return "A reorganisation took its deal off the chain; it goes on if the deal comes back."
    if view.past(task.final_deadline, now):
        never = view.status is TaskStatus.UNSET
        method, name = (Method.INITIALIZE, tries.TO_CLAIM) if never else (Method.CLAIM, Method.CLAIM)
        return f"Its final deadline is over. {_transaction(task, method, lane, name=name)}"
    if view.status is TaskStatus.REVEALING:
        return _revealing(task, view, now, lane)
    if view.past(task.contribution_deadline, now):
        return f"It got too few votes in time. It can be claimed from {_date(task.final_deadline)} on."
    if paused and not task.replicates:
        until = _date(task.contribution_deadline)
        return f"The pool is paused and begins no task: `sluice pool resume`. This one takes votes until {until}."
    if holding is not None and (task.wants or not task.replicates):
        return f"The pool holds and begins nothing new: {holding.rstrip('.')}. It goes on by itself."
    staffing = _staffing(task, view, candidates, now, timeouts)
    if view.status is TaskStatus.UNSET:
        first = _POSTPONED if task.unserved else _transaction(task, Method.INITIALIZE, lane)
        return " ".join([first, *([staffing] if task.wants else [])])
    return staffing


def ended(task: TaskRecord) -> str:
    """How a task that is over ended, in words, with what its machines said was wrong."""
    said = [item.cause.rstrip(".") for item in task.replicates if item.cause is not None]
    found = ", ".join(f"{number} x {cause}" for cause, number in Counter(said).most_common())
    why = f": {task.why.rstrip('.')}" if task.why else ""
    machines = f" Its machines said: {found} (`sluice task show {task.task_id}`)." if found else ""
    return f"It is {task.stage} and waits for nothing{why}.{machines}"


def why_nobody(task: TaskRecord, candidates: Candidates, now: float) -> str:
    """Why no machine can take a waiting task, in words: the obstacle of the machine that is nearest to taking it.

    `candidates`: of its kind; `now`: Unix seconds.
    """
    if lacks_challenge(task):
        return why_unserved(task)
    nearest = candidates.nearest(task)
    if nearest is None:
        return "No machine has signed in at the pool yet."
    stands, capacity = nearest
    if stands is None:
        return "It is about to be given to a machine."
    most, first = capacity.stake, max(0.0, capacity.worker.rest_until - now)
    return {
        Obstacle.BANNED: "Every machine that signed in is banned.",
        Obstacle.DRAINED: "Every machine that is not banned is drained (`sluice worker undrain`).",
        Obstacle.LOST: "No machine has pinged lately.",
        Obstacle.TAG: f"No machine offers what its tag demands: {_demand(task)}.",
        Obstacle.UNCHECKED: "The balances of the machines that could take it were not read from the chain yet.",
        Obstacle.GAS: "No machine that could take it has native token for gas.",
        Obstacle.STAKE: f"Its vote needs {stake_locked(task)} nRLC of free stake; the most a machine has is {most}.",
        Obstacle.NEWCOMERS: f"{_newcomers(task)} It waits for a machine that was right on chain before.",
        Obstacle.ASKED: f"Every machine that could take it was asked: {causes(task)}.",
        Obstacle.COOLING_DOWN: "The machines that could take it cool down after failures, the first for another "
        f"{first:.0f} s.",
        Obstacle.BUSY: "The machines that could take it are busy.",
    }[stands]


def _newcomers(task: TaskRecord) -> str:
    """Why only machines that were right on chain before may take a task."""
    if task.newcomers <= 0:
        return f"At trust {task.trust} machines without a success on chain may not decide it alone."
    return f"{MOST_NEWCOMERS} machines without a success on chain failed it: {causes(task)}."


def _staffing(
    task: TaskRecord,
    view: ChainView,
    candidates: Candidates,
    now: float,
    timeouts: Timeouts,
) -> str:
    """What a task that is open for votes waits for."""
    if replicas.given_up(task, view, now, timeouts):
        return f"Given up: {causes(task)}."
    if awaits_challenge(task, timeouts):
        return why_waiting(task)
    pending = len(replicas.pending(task, view, now, timeouts))
    have = f"{pending} at work, {len(view.contributions)} voted"
    if task.wants and task.backup:
        said = f"Machines that were never right on chain are at it ({have}). A proven one gets it too when it is free."
    elif task.wants:
        said = f"It wants {count(task.wants, 'more worker')} ({have}). {why_nobody(task, candidates, now)}"
    else:
        said = f"Its workers' votes are awaited ({have})."
    failed = any(item.state is ReplicateState.FAILED and item.cause for item in task.replicates)
    return f"{said} Of those asked before: {causes(task)}." if failed and causes(task) not in said else said


def _revealing(task: TaskRecord, view: ChainView, now: float, lane: str | None) -> str:
    """What a task whose votes agree waits for."""
    missing = [vote for vote in view.winners if vote.status is ContributionStatus.CONTRIBUTED]
    over = view.reveal_deadline is not None and view.past(view.reveal_deadline, now)
    if over and not view.revealed:
        return f"No winner has revealed in time. {_transaction(task, Method.REOPEN, lane)}"
    said = "" if over or not missing else f"{_not_revealed(view, len(missing))} "
    if replicas.usable_result(task, view) is None:
        return f"{said}{_no_result(task, view)}"
    return said.rstrip() or _transaction(task, Method.FINALIZE, lane)


def _not_revealed(view: ChainView, missing: int) -> str:
    """How many winners have still to reveal, until when, and what becomes of the task if none does."""
    said = f"{missing} of {len(view.winners)} winners have not revealed yet"
    if view.reveal_deadline is None:
        return f"{said}."
    then = "" if view.revealed else ", and if none has by then, the task is reopened"
    return f"{said}; they can until {_date(view.reveal_deadline)}{then}."


def _no_result(task: TaskRecord, view: ChainView) -> str:
    """Why there is no result yet to finalize with."""
    stored = [
        item
        for item in task.replicates
        if item.link is not None
        and item.digest is not None
        and view.consensus == result_hash(task.task_id, item.digest)
    ]
    if stored and task.has_callback:
        return (
            "The result that was agreed on has no callback data, which the deal's callback contract needs: it cannot "
            f"be finalized and can be claimed from {_date(task.final_deadline)} on."
        )
    asked = [item for item in task.replicates if item.upload_asked_at is not None]
    return f"The result is not stored yet; {len(asked)} of {len(view.winners)} winners were asked to upload it."


def _transaction(task: TaskRecord, method: Method, lane: str | None, *, name: str | None = None) -> str:
    """How far a transaction of the scheduler for a task is. `lane`: what the lane as a whole waits for; `name`: under
    which its failures are counted.
    """
    name = name or method
    failed = tries.refused(task, name)
    if tries.exhausted(task, name):
        again = f" It is tried again {tries.pause_after(failed) / 60:g} minutes later." if tries.goes_on(name) else ""
        return f"Its {method} failed {failed} times: {task.why or 'no reason is known'}.{again}"
    if method in task.sent:
        said = f"Its {method} was submitted to the scheduler's lane at {_date(task.sent[method].at)}."
    else:
        said = f"Its {method} waits for capacity in the scheduler's lane."
    return said if lane is None else f"{said} {lane}"


def _demand(task: TaskRecord) -> str:
    """What a task's tag demands of a machine."""
    kind = framework(task.tag)
    words = [f"TEE {kind.value}"] if kind else []
    if needs_gpu(task.tag):
        words.append("GPU")
    return f"{' and '.join(words)} ({task.tag})" if words else task.tag


def _date(at: float) -> str:
    """A moment in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
