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
from protocol.errors import BadInput, BrokerUnavailable, Unavailable
from workers.broker import Publisher, admit
from workers.keeper import Keeper
from workers.workbench import Machine, Workbench

log = structlog.get_logger(__name__)


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
    for _ in heads(settings.ws_url, bench.rpc, settings.block_time, stop):
        if bench.lane_store.busy(bench.lane.id):
            try:
                publisher.wake_lane()
            except BrokerUnavailable as error:
                log.warning("The lane is not woken.", action="lane_not_woken", why=str(error))
    bench.close()


def _look_after(app: Celery, machine: Machine, stop: threading.Event) -> None:
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
