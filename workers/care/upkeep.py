"""Periodic work of a machine: ping the pool, resume tasks whose message was lost, delete what is over, remove stray
containers. Unasked reveals are in `reveals`: they must not wait for anything here.

All of it repeats what messages do anyway: if every message were lost, tasks would continue, only later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from chain.contracts.hub import Hub
from chain.lane.model.intent import IntentState
from protocol.errors import (
    BadInput,
    EngineUnavailable,
    NotFound,
    PoolUnavailable,
    StorageUnavailable,
    Unavailable,
)
from protocol.poco.view import TaskStatus
from protocol.types import Contract, TaskId
from workers import control
from workers.attempt import Attempts, LogThrottle
from workers.care.resume import Resumer
from workers.care.reveals import is_at_stake, read_views
from workers.context import WorkerContext
from workers.data import dataset_cache
from workers.data.layout import discard
from workers.moments import is_older
from workers.task import own_copy, steps
from workers.task.compute import remove_container
from workers.task.replicate import COMPUTING, Replicate, ReplicateStage, todo
from workers.task.unfinished import unfinished

log = structlog.get_logger(__name__)

#: Seconds without a change after which a step that needs no one else is done here; its own message gets that long.
RESUME_SECONDS = 10.0
#: Seconds at most between two beginnings of a task whose computing changes nothing in the journal.
LONGEST_RESUME_SECONDS = 600.0
#: Tasks named in one ping at most (protocol.wire).
PING_TASKS = 1024
#: Seconds between two checks of the datasets and results that are kept.
TIDY_SECONDS = 600.0
#: Stages of tasks with a vote that may be on chain.
_VOTED = (ReplicateStage.COMMITTED, ReplicateStage.REVEALED)
#: Stages of tasks of which nothing more is to be done here.
_GIVEN_UP = (ReplicateStage.FAILED, ReplicateStage.ABORTED)
_OVER = (TaskStatus.COMPLETED, TaskStatus.FAILED)


@dataclass(frozen=True, slots=True)
class _Resumed:
    """When a task was last resumed, by the monotonic clock, and the state of its row then."""

    at: float
    updated_at: float
    #: Seconds until it is resumed again.
    pause: float

    @classmethod
    def after(cls, before: _Resumed | None, replicate: Replicate, now: float) -> _Resumed:
        """The record for a task that is resumed `now`. One whose result the journal cannot store, as on a full disk, is
        resumed ever more rarely, since it downloads and runs each time.
        """
        stuck = before is not None and before.updated_at == replicate.updated_at and replicate.stage in COMPUTING
        pause = min(2 * before.pause, LONGEST_RESUME_SECONDS) if before is not None and stuck else RESUME_SECONDS
        return cls(now, replicate.updated_at, pause)


class Upkeep:
    """One machine's periodic work, run by the process `upkeep` every `ping_seconds`. For one thread."""

    def __init__(
        self,
        context: WorkerContext,
        resumer: Resumer,
        *,
        votes_only: bool = False,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`votes_only`: drained once no vote waits to be revealed, whatever the pool says or does not say. `steady`:
        seconds of a clock that is never set.
        """
        self._votes_only = votes_only
        self._context, self._steady = context, steady
        self._resumer = resumer
        self._hub = Hub(context.rpc, Contract(context.machine.pool.hub))
        self._resumed: dict[TaskId, _Resumed] = {}
        self._attempts = Attempts(steady)
        self._throttle = LogThrottle()
        self._tidied_at = -math.inf
        #: Whether the pool says that another machine works with this wallet now.
        self.superseded = False
        #: Whether the machine was asked to drain, and nothing is left to do.
        self.drained = False

    def delete_leftovers(self) -> None:
        """Delete files of tasks that the journal lacks. Called at start, while the machine takes tasks."""
        layout = self._context.layout
        # First the folders: a task that is taken meanwhile has its row before its folder.
        folders = list((layout.root / "tasks").iterdir())
        known = {replicate.task_id for replicate in self._context.journal.all_replicates()}
        for folder in folders:
            if folder.name in known:
                continue
            with layout.lock(folder.name, wait=False) as idle:
                if not idle:
                    # E.g. a rehearsal of `sluice worker doctor`.
                    continue
                try:
                    discard(folder)
                    layout.delete_lock(folder.name)
                except StorageUnavailable as error:
                    log.warning("Files could not be deleted.", action="files_left", folder=folder.name, why=str(error))

    def run_once(self) -> None:
        """Ping, delete, abort and resume tasks, remove stray containers; a failing part does not stop the others."""
        replicates = self._context.journal.all_replicates()
        self._attempts.run("votes", partial(steps.note_given_up, self._context, replicates))
        for part in (self._ping, self._resume):
            self._attempts.run(part.__name__.strip("_"), partial(part, replicates))
        self._attempts.run("stakes", self._context.ledger.note_stakes)
        self._attempts.run("containers", self._sweep_containers)
        self._attempts.run("tidy", self._tidy)
        self._attempts.run("drain", self._drain)

    def _tidy(self) -> None:
        """Every TIDY_SECONDS, remove unused datasets from the cache, and old results from the machine's IPFS node."""
        if self._steady() < self._tidied_at + TIDY_SECONDS:
            return
        self._tidied_at = self._steady()
        machine, now = self._context.machine, self._context.now()
        removed = dataset_cache.tidy(machine.layout.cache, machine.settings.dataset_disk_bytes, now)
        if removed:
            log.info("Datasets were removed.", action="datasets_removed", datasets=removed)
        if (node := machine.settings.worker_ipfs_api) is not None:
            try:
                unpinned = own_copy.unpin_old(node, machine.settings.keep_results_days, now)
            except StorageUnavailable as error:
                log.warning("Old results are still pinned.", action="own_copies_pinned", why=str(error))
            else:
                if unpinned:
                    log.info("Old results were unpinned.", action="own_copies_unpinned", results=unpinned)

    # -- the pool ------------------------------------------------------------------------------------------------------

    def _ping(self, replicates: Sequence[Replicate]) -> None:
        """Send the pool the tasks that are held here, and do what its answer asks for."""
        try:
            pong = self._context.pool.ping(
                [replicate.task_id for replicate in replicates[:PING_TASKS]], self._context.layout.machine_id()
            )
        except (PoolUnavailable, BadInput) as error:
            log.warning("The pool did not take our ping.", action="ping_failed", why=str(error))
            return
        if pong.superseded:
            self.superseded = True
            return
        self._context.layout.note_ping()
        layout = self._context.layout
        unable = layout.why_unconfined() is not None or layout.why_unfit() is not None
        if control.drain_of(layout) is not None or unable or self._limit_reached():
            # A ping says that the machine takes tasks.
            self._leave()
        for task_id in pong.abort:
            self._attempts.run(f"abort {task_id}", partial(steps.abort, self._context, TaskId(task_id)))
        # Tasks unknown to the pool continue until their final deadline: its database may have been lost.
        over = {*pong.forget, *(TaskId(task_id) for task_id in pong.unknown if self._too_late(replicates, task_id))}
        self._forget([replicate for replicate in replicates if replicate.task_id in over])

    def _limit_reached(self) -> bool:
        """Whether this machine has spent or risks as much as it may, so that it takes no new task."""
        why = self._context.ledger.why_no_work(self._context.machine.pool.least_stake)
        if why is None:
            if self._throttle.forget("limit"):
                log.info("New tasks are taken again.", action="limit_over")
            return False
        # The figures change all the time: what was logged is that a limit is reached.
        if self._throttle.should_log("limit", "reached", self._steady()):
            log.warning(f"No new task is taken: {why}. Votes are still revealed.", action="limit_reached", why=why)
        return True

    def _too_late(self, replicates: Sequence[Replicate], task_id: str) -> bool:
        """Whether the final deadline of a held task is over."""
        held = next((replicate for replicate in replicates if replicate.task_id == task_id), None)
        return held is not None and self._context.now() > held.assignment.final_deadline

    def _forget(self, replicates: Sequence[Replicate]) -> None:
        """Delete tasks that are over. While a vote can still be revealed, the chain decides that, not the pool."""
        at_stake = [item.task_id for item in replicates if is_at_stake(item)]
        views = read_views(self._hub, at_stake)
        for replicate in replicates:
            task_id = replicate.task_id
            if replicate.stage in COMPUTING:
                steps.abort(self._context, task_id)
                continue
            view = views.get(task_id)
            if is_at_stake(replicate) and (view is None or view.status not in _OVER):
                continue
            with self._context.layout.lock(task_id, wait=False) as held:
                if held:
                    # First the row: an upload that is asked for late must not look for files that are gone. Files
                    # without a row are deleted at the next start.
                    self._context.journal.end(task_id, self._context.now())
                    try:
                        self._context.layout.task(task_id).remove()
                    except StorageUnavailable as error:
                        log.warning("Files could not be deleted.", action="files_left", task=task_id, why=str(error))
                    self._context.layout.delete_lock(task_id)
                    log.info(
                        "The task is over; its files and its row are deleted.", action="task_forgotten", task=task_id
                    )

    def _leave(self) -> None:
        """Sign off from the pool: no new tasks."""
        try:
            self._context.pool.leave(self._context.layout.machine_id())
        except (PoolUnavailable, BadInput) as error:
            log.warning("The sign-off did not reach the pool.", action="leave_failed", why=str(error))

    def _drain(self) -> None:
        """If the machine drains: give back tasks not computed by its deadline, and note when nothing is left.

        A vote that was sent is never given up: the machine goes on until it is revealed and its task over.
        """
        wish = control.drain_of(self._context.layout)
        if wish is None:
            return
        left = [item for item in self._context.journal.all_replicates() if item.stage not in _GIVEN_UP]
        if wish.deadline is not None and self._context.now() >= wish.deadline:
            for item in left:
                if item.stage in COMPUTING:
                    steps.hand_back(self._context, item.task_id, "the machine is drained")
            left = [item for item in left if item.stage not in COMPUTING]
        if self._votes_only:
            left = self._unrevealed()
        store, lane = self._context.lane_store, self._context.lane.id
        if left or store.count(lane, (IntentState.QUEUED, IntentState.SENT)):
            return
        # What it has assigned may be on its way to this machine's queue.
        self.drained = (wish.deadline is not None and self._context.now() >= wish.deadline) or not self._is_expected()

    def _unrevealed(self) -> list[Replicate]:
        """Tasks with a vote that may have to be revealed: all with a vote if the chain does not answer."""
        context, replicates = self._context, self._context.journal.all_replicates()
        voted = [item for item in replicates if item.stage in _VOTED and not item.solo]
        views = read_views(self._hub, [item.task_id for item in voted])
        now = context.now()
        return [item for item in voted if unfinished([item], views, context.machine.wallet, now).votes]

    def _is_expected(self) -> bool:
        """Whether the pool still expects this machine to do a task, or does not answer."""
        try:
            return bool(self._context.machine.api.worker(self._context.machine.wallet).busy)
        except NotFound:
            return False
        except (Unavailable, BadInput):
            return True

    # -- what no message moves -----------------------------------------------------------------------------------------

    def _resume(self, replicates: Sequence[Replicate]) -> None:
        """Carry on with tasks for which no message has come for a while."""
        for replicate in replicates:
            next_step = todo(replicate)
            if next_step is None or not is_older(replicate.updated_at, RESUME_SECONDS, self._context.now()):
                continue
            before = self._resumed.get(replicate.task_id)
            if before is not None and self._steady() < before.at + before.pause:
                continue
            with self._context.layout.lock(replicate.task_id, wait=False) as idle:
                pass
            if idle and self._resumer.resume(replicate):
                log.info(
                    "Resuming a task whose message was lost.",
                    action="task_resumed",
                    task=replicate.task_id,
                    step=next_step,
                )
                self._resumed[replicate.task_id] = _Resumed.after(before, replicate, self._steady())
        self._resumed = {
            item.task_id: self._resumed[item.task_id] for item in replicates if item.task_id in self._resumed
        }

    # -- containers ----------------------------------------------------------------------------------------------------

    def _sweep_containers(self) -> None:
        """Remove containers of tasks that are not being computed (any more)."""
        try:
            for task_id, container in self._context.engine.containers_of(self._context.machine.wallet):
                replicate = self._context.journal.find(task_id)
                if replicate is not None and replicate.stage in COMPUTING:
                    continue
                self._attempts.run(f"container {container}", partial(self._remove_stray, task_id, container))
        except EngineUnavailable as error:
            log.warning("Docker does not answer.", action="engine_away", why=str(error))

    def _remove_stray(self, task_id: TaskId, container: str) -> None:
        """Remove a container that no running task uses."""
        with self._context.layout.lock(task_id, wait=False) as idle:
            if idle:
                remove_container(self._context, container)
