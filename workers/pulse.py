"""The process that keeps a machine moving: new blocks wake the lane, a timer looks after the rest (`keeper`).

new head ──► does the lane have open work? ──► message `worker.lane` to our own queue
timer    ──► ping, resume, reveal, forget, sweep
"""

from __future__ import annotations

import signal
import threading

import structlog
from celery import Celery

from chain.heads import heads
from chain.lane.intent import IntentState
from protocol.errors import BadInput, BrokerUnavailable, Unavailable
from workers.broker import Publisher, admit
from workers.keeper import Keeper
from workers.workbench import Machine, Workbench

log = structlog.get_logger(__name__)

#: While mined transactions only wait for their depth, every so many heads is soon enough.
SETTLE_HEADS = 6
#: And while nothing is open, so that a reorg deeper than finality is noticed on an idle machine too.
IDLE_HEADS = 60


def run(app: Celery, machine: Machine) -> None:
    """Run until SIGTERM."""
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    timer = threading.Thread(target=_look_after, args=(app, machine, stop), name="keeper", daemon=True)
    timer.start()
    _follow_heads(app, machine, stop)
    timer.join(machine.settings.rpc_timeout)


def _follow_heads(app: Celery, machine: Machine, stop: threading.Event) -> None:
    bench = Workbench(machine)
    publisher = Publisher(app, machine)
    settings = machine.settings
    for number, _ in enumerate(heads(settings.ws_url, bench.rpc, settings.block_time, stop)):
        if _lane_is_due(bench, number):
            try:
                publisher.wake_lane()
            except BrokerUnavailable as error:
                log.warning("The lane is not woken.", action="lane_not_woken", why=str(error))
    bench.close()


def _lane_is_due(bench: Workbench, number: int) -> bool:
    """Whether the head that is the `number`th is one for the lane: each while something is to be sent or mined."""
    store, lane = bench.lane_store, bench.lane.id
    if store.count(lane, (IntentState.QUEUED, IntentState.SENT)):
        return True
    return number % IDLE_HEADS == 0 or (number % SETTLE_HEADS == 0 and store.busy(lane))


def _look_after(app: Celery, machine: Machine, stop: threading.Event) -> None:
    try:
        _keep(app, machine, stop)
    finally:
        # An error in a thread ends only the thread: without this the process would live on with nobody pinging.
        # So it ends, and the supervisor starts it again.
        stop.set()


def _keep(app: Celery, machine: Machine, stop: threading.Event) -> None:
    bench = Workbench(machine)
    keeper = Keeper(bench, Publisher(app, machine))
    keeper.tidy()
    while True:
        try:
            admit(app, machine)
        except (Unavailable, BadInput) as error:
            log.warning("Cannot sign in.", action="sign_in_failed", why=str(error))
        keeper.look()
        if stop.wait(machine.settings.ping_seconds):
            break
    bench.close()
