"""Bring tasks forward: load, fold, decide, save, act; for many tasks at once. Called for events, reports and by the
sweep.

    tasks ─┐
           ├─► decide each ─► hand transactions to the lane ─► save changed tasks ─► give slots back ─► assign
    logs ──┘                                                                         publish segments

What is done before the save is harmless to repeat: the lane keeps one transaction per key. The rest is done for
tasks that were saved, and for no others: if another process changed a task meanwhile, its decision is made again from
the new state. What a crash after the save leaves undone is repeated by the sweep, when `decide` asks again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from config.metrics import REPLICATES_ENDED, TASK_REPLICATES, TASKS_ENDED
from pipeline.broker import segments
from pipeline.broker.segments import Segment
from pipeline.domain import decide as deciding
from pipeline.domain import outcomes, progress
from pipeline.domain.actions import (
    Action,
    AskChallenge,
    AskReveal,
    AskUpload,
    Count,
    Drop,
    End,
    Free,
    Method,
    Pledge,
    Resend,
    Stop,
    Submit,
)
from pipeline.domain.condition.hearing import latest_sweep
from pipeline.domain.outcomes import Trouble
from pipeline.domain.records import Outcome, TaskRecord, TaskStage
from pipeline.domain.replicas import lacks_reopening
from pipeline.flow import isolate, latency
from pipeline.flow.assign import assign, resend
from pipeline.flow.transactions import BULK_CAPACITY, MOST_WITH_INITIALIZE, initializes, of_expired, without_initialize
from pipeline.flow.unserved import Served
from pipeline.scheduler import Scheduler
from protocol.poco.events import Seen
from protocol.poco.view import ChainView, fold
from protocol.types import TaskId

log = structlog.get_logger(__name__)

#: Times to decide again when other processes keep changing the same tasks; after that the sweep does.
TRIES = 5


@dataclass(frozen=True, slots=True)
class Decision:
    """One task's decision."""

    before: TaskRecord
    after: TaskRecord
    view: ChainView
    actions: list[Action]
    #: Whether a transaction of an expired task waits for lane capacity; the sweep or `pipeline.bulk` comes again.
    put_off: bool = False

    @property
    def changed(self) -> bool:
        """Whether there is something to save."""
        return self.after is not self.before


def advance(
    scheduler: Scheduler, task_ids: Sequence[TaskId], known: Mapping[TaskId, ChainView] | None = None
) -> list[Decision]:
    """Advance these tasks. `known`: views read from the contract, for tasks with a suspected missed event.

    Returns the decisions that stand; a task that other processes keep changing has none and is left to the sweep.
    Raises PyMongoError or an Unavailable; doing it again is harmless.
    """
    settled: list[Decision] = []
    for _ in range(TRIES):
        steps = _decide(scheduler, task_ids, known or {})
        _submit(scheduler, steps)
        changed = [step for step in steps if step.changed]
        saved = scheduler.store.tasks.save(
            [step.after for step in changed], {step.before.task_id: step.before for step in changed}
        )
        _act(scheduler, [step for step in changed if step.before.task_id in saved])
        settled += [step for step in steps if not step.changed or step.before.task_id in saved]
        task_ids = [step.before.task_id for step in changed if step.before.task_id not in saved]
        if not task_ids:
            break
        log.info("Tasks changed meanwhile, deciding again.", action="advance_again", tasks=len(task_ids))
    _assign_if_needed(scheduler, settled)
    return settled


def views(scheduler: Scheduler, tasks: Sequence[TaskRecord]) -> dict[TaskId, ChainView]:
    """Each task's state on chain, folded from its logs; none for a task with a log that cannot be read."""
    return _folded(tasks, *scheduler.store.chain.logs.read([task.task_id for task in tasks]))


def _folded(
    tasks: Sequence[TaskRecord], logs: Mapping[TaskId, Sequence[Seen]], broken: Collection[TaskId]
) -> dict[TaskId, ChainView]:
    """Each task's state on chain, folded from its logs; none for tasks with a log that cannot be read."""
    return {
        task.task_id: fold(task.task_id, logs.get(task.task_id, ()), category_seconds=task.category_seconds)
        for task in tasks
        if task.task_id not in broken
    }


def _decide(scheduler: Scheduler, task_ids: Sequence[TaskId], known: Mapping[TaskId, ChainView]) -> list[Decision]:
    """What is to be done for each task that can be decided upon now; nothing is saved or sent yet."""
    loaded = scheduler.store.tasks.load_with_logs(task_ids)
    tasks = [task for task, _ in loaded]
    logs = scheduler.store.chain.logs.read_rows(
        row for task, rows in loaded if task.task_id not in known for row in rows
    )
    folded = _folded([task for task in tasks if task.task_id not in known], *logs)
    now = scheduler.clock()
    block_time = scheduler.chain_time.read(now)
    steps: list[Decision] = []
    capacity: int | None = None
    spare: int | None = None
    trouble, served = _TroubleOf(scheduler), Served(scheduler)
    stopped: bool | None = None
    for task in tasks:
        found = known.get(task.task_id) or folded.get(task.task_id)
        if found is None or (task.task_id not in known and lacks_reopening(task, found)):
            # The sweep asks the contract.
            continue
        view = replace(found, time=block_time)
        actions = deciding.decide_excusing(task, view, now, scheduler.timeouts, trouble.of)
        voting = not view.past(task.contribution_deadline, now)
        actions = served.without_unserved(task, actions) if voting else actions
        if initializes(actions) and not task.replicates and voting:
            stopped = scheduler.begins().nothing if stopped is None else stopped
            actions = without_initialize(actions) if stopped else actions
        late, put_off = of_expired(actions, voting=voting), False
        if late:
            spare = BULK_CAPACITY - scheduler.transactions.open() if spare is None else spare - 1
            put_off = spare <= 0
            actions = [action for action in actions if action not in late] if put_off else actions
        elif initializes(actions):
            capacity = MOST_WITH_INITIALIZE - scheduler.transactions.queued() if capacity is None else capacity - 1
            actions = actions if capacity > 0 else without_initialize(actions)
        after = progress.after(task, view, actions, now, scheduler.timeouts)
        steps.append(Decision(task, after, view, actions, put_off=put_off))
    return steps


class _TroubleOf:
    """The pool's own outages as far as they concern a task, read once for a call of `advance`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._common: Trouble | None = None

    def of(self, task: TaskRecord, actions: Sequence[Action]) -> Trouble:
        """The outages that concern this task. Only winners that would count as late are looked up for other uploads."""
        store, settings = self._scheduler.store, self._scheduler.settings
        if self._common is None:
            now = self._scheduler.clock()
            last_after = latest_sweep(now, settings.worker_lost_seconds, settings.sweep_seconds)
            self._common = store.sweeps.outages(now, last_after)
        asked = {wallet: task.replicate(wallet) for wallet in outcomes.late_winners(actions)}
        uploading = {
            wallet
            for wallet, item in asked.items()
            if item is not None
            and item.upload_asked_at is not None
            and store.uploads.under_way(wallet, item.upload_asked_at, but=task.task_id)
        }
        return replace(self._common, uploading=frozenset(uploading))


def _submit(scheduler: Scheduler, steps: Sequence[Decision]) -> None:
    """Hand the decided transactions to the lane and wake it."""
    submits = [(step.before.task_id, act) for step in steps for act in step.actions if isinstance(act, Submit)]
    if submits:
        now = scheduler.clock()
        count, failures = scheduler.transactions.submit(submits, now, scheduler.chain_time.read(now) or now)
        scheduler.store.tasks.record_failed_intents(failures)
        if count:
            scheduler.notifier.send_lane()


def _give_slots_back(scheduler: Scheduler, steps: Sequence[Decision]) -> None:
    """Free and pledge slots as decided, and count outcomes for and against workers."""
    pledged = [(act.wallet, step.before.task_id) for step in steps for act in step.actions if isinstance(act, Pledge)]
    scheduler.store.workers.pledge(pledged)
    freed = [(act, step.before.task_id) for step in steps for act in step.actions if isinstance(act, Free)]
    for outcome in Outcome:
        slots = sorted({(act.wallet, task) for act, task in freed if act.outcome is outcome})
        scheduler.store.workers.release(slots, outcome, scheduler.clock())
        if slots:
            REPLICATES_ENDED.labels(outcome.lower()).inc(len(slots))
    counted = [(act.wallet, act.outcome) for step in steps for act in step.actions if isinstance(act, Count)]
    scheduler.store.workers.count_outcomes(counted, scheduler.clock())


def _act(scheduler: Scheduler, steps: Sequence[Decision]) -> None:
    """Carry out saved decisions."""
    _give_slots_back(scheduler, steps)
    messages = [segment for step in steps for segment in _segments(scheduler, step)]
    again = [(step.after, act.wallet) for step in steps for act in step.actions if isinstance(act, Resend)]
    messages += resend(scheduler, again)
    scheduler.publish(messages)
    if scheduler.challenges is not None:
        untold = [step.before.task_id for step in steps if any(isinstance(act, AskChallenge) for act in step.actions)]
        scheduler.challenges.ask(untold)
    latency.count([(step.before, step.after) for step in steps], scheduler.clock())
    _show_machines(scheduler, steps)
    for step in steps:
        for action in step.actions:
            if isinstance(action, End):
                if step.before.stage is not action.stage:
                    # not once more after a reorg that changed nothing in the end
                    TASKS_ENDED.labels(str(action.stage)).inc()
                    TASK_REPLICATES.observe(len(step.before.replicates))
                    _show_end(scheduler, step.before, action)
                log.info(
                    "Task ended.", action="task_ended", task=step.before.task_id, stage=action.stage, why=action.why
                )


def _show_machines(scheduler: Scheduler, steps: Sequence[Decision]) -> None:
    """Send Flower the steps of machines that the chain has shown since the last decision, and those given up."""
    proved, given_up = [], []
    for step in steps:
        task, known = step.before.task_id, {item.wallet: item for item in step.before.replicates}
        for item in step.after.replicates:
            noted = known[item.wallet].steps if item.wallet in known else {}
            proved += [(item, task, new) for new in progress.PROVED.intersection(item.steps).difference(noted)]
        given_up += [
            (known[action.wallet], task, action)
            for action in step.actions
            if isinstance(action, Drop | Free | Count) and action.wallet in known
        ]
    if proved or given_up:
        scheduler.relay.decided(proved, given_up)


def _show_end(scheduler: Scheduler, task: TaskRecord, end: End) -> None:
    """Send Flower the task's last step: done in a transaction of the scheduler's, or failed with its cause."""
    sent = task.sent.get(Method.FINALIZE)
    since = None if sent is None else sent.at
    if end.stage is TaskStage.FAILED:
        scheduler.relay.step("finalize", task.task_id, since, failure=end.why)
    elif since is not None:
        scheduler.relay.step("finalize", task.task_id, since)


def _segments(scheduler: Scheduler, step: Decision) -> list[Segment]:
    """The messages to machines that a decision asks for."""
    task, found = step.before.task_id, []
    for action in step.actions:
        match action:
            case AskReveal(wallet=wallet, upload=upload):
                found.append(segments.reveal(scheduler.pool, wallet, task))
                if upload:
                    found.append(segments.upload(scheduler.pool, wallet, task))
            case AskUpload(wallet=wallet):
                found.append(segments.upload(scheduler.pool, wallet, task))
            case Stop(wallet=wallet):
                found.append(segments.abort(scheduler.pool, wallet, task))
            case _:
                continue
    return found


def _assign_if_needed(scheduler: Scheduler, steps: Sequence[Decision]) -> None:
    """Run one round of matching if a saved task wants workers, or slots have become free."""
    wants = any(step.after.wants for step in steps)
    freed = any(isinstance(action, Free | Pledge) for step in steps for action in step.actions)
    if wants or freed:
        # An error in there is not one of these tasks'.
        isolate.all_of([partial(assign, scheduler, check_unfunded=False)])
