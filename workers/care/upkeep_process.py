"""Main of the process `upkeep`: runs the lane, and by a timer does the periodic work (`upkeep`).

thread heads   new head ──► does the lane have open work? ──► wakes the lane
                        ──► is there a vote to reveal that nobody asked for? ──► reveals it
                        ──► neither, for some heads? ──► follows none until there is
thread lane    woken by heads, or by a step that has stored a transaction (`lane_wakeup`) ──► one run of the lane,
               with what the last run saw of the chain unless a head came since; what is stored soon after a run
               waits a moment, so that a machine with many slots sends what they have stored together
thread upkeep  timer ──► sign in if needed, ping, resume, delete, remove containers; every minute: check this machine.
               A pool that does not answer may hold it up; no vote waits for it
SIGTERM  ──► POST /workers/leave: the pool assigns no new task

What fails in one of their parts is logged and tried again; if a thread ends nevertheless, the process ends, and the
supervisor starts it again.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import structlog
from celery import Celery

from chain.lane.model.intent import IntentState
from chain.rpc.announced import Announced
from chain.rpc.heads import heads
from config.values.endpoints import asks_who_announces
from protocol.errors import BadInput, Unavailable
from workers import log_file
from workers.attempt import Attempts
from workers.care.lane_wakeup import LaneListener, LaneWakeup
from workers.care.resume import Resumer
from workers.care.reveals import UnaskedReveals, is_at_stake
from workers.care.upkeep import Upkeep
from workers.context import Machine, WorkerContext
from workers.fitness.checkup import Checkup
from workers.pool.broker import sign_in_if_refused
from workers.task import steps

log = structlog.get_logger(__name__)

#: While mined transactions only wait for their depth, every so many heads is soon enough.
SETTLE_HEADS = 6
#: And while nothing is open, so that a reorg deeper than finality is noticed on an idle machine too. Heads are not
#: followed meanwhile: a machine that waits for work costs its owner nothing.
IDLE_HEADS = 120
#: Seconds for a wake-up of the lane that hangs: a few runs, each a few requests to the node with a timeout of their
#: own. Then the process ends, and another one begins anew.
LANE_SECONDS = 330.0

#: Seconds from the begin of one run of the lane to the next without a head between them, at most this share of the time
#: between blocks: a run costs some ten requests and syncs of the disk, however many transactions it sends.
LANE_PACE, LANE_PACE_SHARE = 0.2, 0.2


def run(app: Celery | None, machine: Machine) -> None:
    """Run until SIGTERM. `app`: whose user at the broker is kept valid; None for a machine that takes no messages."""
    stop, signalled, woken = threading.Event(), threading.Event(), threading.Event()

    def end() -> None:
        """Have all threads end."""
        stop.set()
        woken.set()

    def stopping(*_: object) -> None:
        """Signal handler: have all threads end, and the machine sign off."""
        signalled.set()
        end()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stopping)
    wakeup = LaneWakeup(machine.layout.lane_wakeup)
    with wakeup.listen() as listener:
        pace = min(LANE_PACE, LANE_PACE_SHARE * machine.settings.block_time)
        lane = LaneRunner(machine, listener, stop, woken, pace)
        threads = [
            threading.Thread(target=_or_end, args=(end, work), name=name, daemon=True)
            for name, work in (("lane", lane.run), ("upkeep", partial(_periodic_work, app, machine, lane, stop)))
        ]
        for thread in threads:
            thread.start()
        _follow_heads(machine, wakeup, lane, stop)
        wakeup.notify()
        for thread in threads:
            # Above all the one that pings: a ping after the sign-off would undo it.
            thread.join(machine.settings.rpc_timeout)
    if signalled.is_set():
        _sign_off(machine)


def _or_end(end: Callable[[], None], work: Callable[[], None]) -> None:
    """Run a thread's work; when it ends or fails, end the process."""
    try:
        work()
    finally:
        # An error in a thread ends only the thread: without this the process would go on without it. So the process
        # ends, and the supervisor starts it again.
        end()


def _sign_off(machine: Machine) -> None:
    """Sign off at the pool, so that it assigns this machine no new task from now on."""
    log.info("Stopping: no new task is taken, and steps under way get some seconds to end.", action="machine_stopping")
    context = WorkerContext(machine)
    try:
        context.pool.leave(machine.layout.machine_id())
    except (BadInput, Unavailable) as error:
        log.warning("The sign-off did not reach the pool.", action="leave_failed", why=str(error))
    finally:
        context.close()


def _follow_heads(machine: Machine, wakeup: LaneWakeup, lane: LaneRunner, stop: threading.Event) -> None:
    """Body of the main thread: at each new block, wake the lane if it has work, and reveal what is due; until `stop` is
    set.
    """
    context = WorkerContext(machine)
    settings, attempts, reveals = machine.settings, Attempts(time.monotonic), UnaskedReveals(context)
    announced = lane.announced if asks_who_announces(settings) else None
    while not stop.is_set():
        with closing(heads(settings.ws_url, context.rpc, settings.block_time, stop, announced)) as numbers:
            for number, _ in enumerate(numbers):
                lane.note_head()
                attempts.run("lane", partial(_wake_if_due, context, wakeup, number))
                attempts.run("reveal", reveals.run_if_due)
                if number and number % SETTLE_HEADS == 0:
                    attempts.run("stop_heads", partial(lane.stop_heads_if_idle, context))
                if lane.needs_no_heads:
                    break
        while lane.needs_no_heads and not stop.is_set():
            if not lane.woken_within(IDLE_HEADS * settings.block_time):
                wakeup.notify()
            attempts.run("stop_heads", partial(lane.stop_heads_if_idle, context))
    context.close()


def _wake_if_due(context: WorkerContext, wakeup: LaneWakeup, number: int) -> None:
    """Wake the lane at the `number`th head: at each one while something is to be sent or mined, else rarely."""
    store, lane = context.lane_store, context.lane.id
    pending = store.count(lane, (IntentState.QUEUED, IntentState.SENT)) > 0
    if pending or number % IDLE_HEADS == 0 or (number % SETTLE_HEADS == 0 and store.busy(lane)):
        wakeup.notify()


class LaneRunner:
    """Runs the lane each time that it is woken, for one thread."""

    def __init__(
        self,
        machine: Machine,
        listener: LaneListener,
        stop: threading.Event,
        woken: threading.Event,
        pace: float = 0.0,
    ) -> None:
        """`pace`: seconds from the begin of one run to the next, unless a head comes."""
        self._machine, self._listener, self._stop, self._pace = machine, listener, stop, pace
        self._began: float | None = None
        #: Set by each wake-up, and by the end of this process.
        self._woken = woken
        #: Whether no head can matter until the lane is woken.
        self.needs_no_heads = False
        #: Set by each head, and by none but heads: a byte in the pipe does not tell who wrote it.
        self._head_came = threading.Event()
        #: The headers that come with heads.
        self.announced = Announced()

    def note_head(self) -> None:
        """Note a new head, so that the next run reads the chain anew."""
        self._head_came.set()

    def run(self) -> None:
        """Run the lane at each wake-up, until `stop` is set and a wake-up comes. Body of the lane's thread."""
        context = WorkerContext(self._machine)
        attempts = Attempts(time.monotonic)
        due = -math.inf
        while self._listener.wait() and not self._stop.is_set():
            self._woken.set()
            if self._pace:
                self._head_came.wait(max(0.0, due - time.monotonic()))
                # What came meanwhile is this run's.
                self._listener.wait(0)
                if self._stop.is_set():
                    break
            self._began = time.monotonic()
            due = self._began + self._pace
            head_came = self._head_came.is_set()
            if head_came:
                # Only then: a head that comes between the two lines is the next run's.
                self._head_came.clear()
            announced = self.announced.take() if head_came else None
            attempts.run("lane", partial(steps.run_lane, context, same_head=not head_came, announced=announced))
            self._began = None
            # It may have found work.
            self._woken.set()
        context.close()

    def stop_heads_if_idle(self, context: WorkerContext) -> None:
        """Set `needs_no_heads` if the lane has nothing open and no vote is at stake; else clear it. `context`: the
        calling thread's.
        """
        # In this order: what is stored after the look wakes the lane after it.
        self._woken.clear()
        self.needs_no_heads = False
        at_stake = any(map(is_at_stake, context.journal.all_replicates()))
        self.needs_no_heads = not at_stake and not context.lane_store.busy(context.lane.id)
        if self.needs_no_heads:
            # Heads that come meanwhile are seen by nobody.
            self._head_came.set()

    def woken_within(self, seconds: float) -> bool:
        """Wait at most `seconds` until the lane is woken or a run of it ends; returns whether one did."""
        # `stop` is set before `woken`, which may have been cleared since.
        return self._stop.is_set() or self._woken.wait(seconds)

    def follow_heads_if_busy(self, context: WorkerContext) -> None:
        """Have heads followed again if the lane has open work whose wake-up was lost with a killed process. `context`:
        the calling thread's.
        """
        if self.needs_no_heads and context.lane_store.busy(context.lane.id):
            self._woken.set()

    def hangs(self, now: float) -> bool:
        """Whether one run lasts longer than LANE_SECONDS. `now`: monotonic seconds."""
        began = self._began
        return began is not None and now > began + LANE_SECONDS


def _periodic_work(app: Celery | None, machine: Machine, lane: LaneRunner, stop: threading.Event) -> None:
    """Body of the upkeep thread: sign in, ping, tidy and check the machine every `ping_seconds`, until `stop` is set or
    the machine is drained or superseded.
    """
    context = WorkerContext(machine)
    upkeep = Upkeep(context, Resumer(machine), votes_only=app is None)
    checkup = Checkup(machine, context.now)
    attempts = Attempts(time.monotonic)
    attempts.run("tidy", upkeep.delete_leftovers)
    while not upkeep.superseded and not upkeep.drained:
        attempts.run("follow_heads", partial(lane.follow_heads_if_busy, context))
        if app is not None:
            attempts.run("admit", partial(_admit, app, machine))
        attempts.run("look", upkeep.run_once)
        attempts.run("checkup", checkup.run_if_due)
        attempts.run("log", partial(log_file.rotate, machine.layout))
        if lane.hangs(time.monotonic()):
            log.error("A run of the lane does not end; this process starts again.", action="lane_hangs")
            break
        if stop.wait(machine.settings.ping_seconds):
            break
    if upkeep.superseded:
        log.error(
            "Another machine works with this wallet now, so this one stops. Give each machine a wallet of its own.",
            action="machine_superseded",
            wallet=machine.wallet,
        )
    if upkeep.drained:
        log.info("Drained: nothing is left to do, so this machine stops.", action="machine_drained")
    if upkeep.superseded or upkeep.drained:
        # The supervisor, which ends all processes of this machine.
        os.kill(os.getppid(), signal.SIGTERM)
        stop.wait()
    context.close()


def _admit(app: Celery, machine: Machine) -> None:
    """Sign in again if the broker refuses the machine."""
    try:
        sign_in_if_refused(app, machine)
    except (Unavailable, BadInput) as error:
        log.warning("Cannot sign in.", action="sign_in_failed", why=str(error))
