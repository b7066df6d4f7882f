"""Main of the process `upkeep`: at new blocks it has the lane run, by a timer it does the periodic work (`upkeep`).

new head ──► does the lane have open work? ──► message `worker.lane` to this machine's own queue
timer    ──► sign in if needed, ping, resume, reveal, delete, remove containers; every minute: check this machine
SIGTERM  ──► POST /workers/leave: the pool assigns no new task

The two run in threads of their own. What fails in one of their parts is logged and tried again; a thread that ends all
the same ends the process, and the supervisor starts it again.
"""

from __future__ import annotations

import os
import signal
import threading
from functools import partial

import structlog
from celery import Celery

from chain.lane.model.intent import IntentState
from chain.rpc.heads import heads
from protocol.errors import BadInput, BrokerUnavailable, Unavailable
from workers.attempt import Attempts
from workers.context import Machine, WorkerContext
from workers.fitness.checkup import Checkup
from workers.pool.broker import Publisher, admit
from workers.upkeep import Upkeep

log = structlog.get_logger(__name__)

#: While mined transactions only wait for their depth, every so many heads is soon enough.
SETTLE_HEADS = 6
#: And while nothing is open, so that a reorg deeper than finality is noticed on an idle machine too.
IDLE_HEADS = 60


def run(app: Celery, machine: Machine) -> None:
    """Run until SIGTERM."""
    stop, signalled = threading.Event(), threading.Event()

    def stopping(*_: object) -> None:
        signalled.set()
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stopping)
    timer = threading.Thread(target=_timer_thread, args=(app, machine, stop), name="upkeep", daemon=True)
    timer.start()
    _follow_heads(app, machine, stop)
    # Wait for the thread that pings: a ping after the sign-off would undo it.
    timer.join(machine.settings.rpc_timeout)
    if signalled.is_set():
        _sign_off(machine)


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


def _follow_heads(app: Celery, machine: Machine, stop: threading.Event) -> None:
    context = WorkerContext(machine)
    publisher = Publisher(app, machine)
    settings, attempts = machine.settings, Attempts(context.now)
    for number, _ in enumerate(heads(settings.ws_url, context.rpc, settings.block_time, stop)):
        attempts.run("lane", partial(_run_lane_if_due, context, publisher, number))
    context.close()


def _run_lane_if_due(context: WorkerContext, publisher: Publisher, number: int) -> None:
    """Publish `worker.lane` if the lane has work at the `number`th head."""
    if _lane_is_due(context, number):
        try:
            publisher.wake_lane()
        except BrokerUnavailable as error:
            log.warning(
                "The message that runs the lane could not be published.", action="lane_not_woken", why=str(error)
            )


def _lane_is_due(context: WorkerContext, number: int) -> bool:
    """Whether the lane runs at the `number`th head: at each while something is to be sent or mined, else rarely."""
    store, lane = context.lane_store, context.lane.id
    if store.count(lane, (IntentState.QUEUED, IntentState.SENT)):
        return True
    return number % IDLE_HEADS == 0 or (number % SETTLE_HEADS == 0 and store.busy(lane))


def _timer_thread(app: Celery, machine: Machine, stop: threading.Event) -> None:
    try:
        _periodic_work(app, machine, stop)
    finally:
        # An error in a thread ends only the thread: without this the process would go on without pings. So the process
        # ends, and the supervisor starts it again.
        stop.set()


def _periodic_work(app: Celery, machine: Machine, stop: threading.Event) -> None:
    context = WorkerContext(machine)
    upkeep, checkup = Upkeep(context, Publisher(app, machine)), Checkup(machine, context.now)
    attempts = Attempts(context.now)
    attempts.run("tidy", upkeep.delete_leftovers)
    while not upkeep.superseded:
        attempts.run("admit", partial(_admit, app, machine))
        attempts.run("look", upkeep.run_once)
        attempts.run("checkup", checkup.run_if_due)
        if stop.wait(machine.settings.ping_seconds):
            break
    if upkeep.superseded:
        log.error(
            "Another machine works with this wallet now, so this one stops. Give each machine a wallet of its own.",
            action="machine_superseded",
            wallet=machine.wallet,
        )
        # The supervisor, which ends all processes of this machine.
        os.kill(os.getppid(), signal.SIGTERM)
        stop.wait()
    context.close()


def _admit(app: Celery, machine: Machine) -> None:
    try:
        admit(app, machine)
    except (Unavailable, BadInput) as error:
        log.warning("Cannot sign in.", action="sign_in_failed", why=str(error))
