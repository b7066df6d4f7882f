"""A worker machine as a plain Celery app, for the command line.

celery -A workers worker        consumes w.<wallet> and w.<wallet>.tx, and runs the upkeep process beside it

The environment is that of `sluice worker run`: the `SLUICE_…` variables. The worker prepares the machine and signs in
before it connects. It sends no events and answers no remote control, because the pool gives a machine no right to: so
`-A workers status` and `inspect` find nobody, and Flower shows the machine by what it reports to the pool.

What differs from `sluice worker run`:

- One Celery worker serves both queues. Under a full load a reveal may wait for a container to end, until the process
  `upkeep` reveals by itself; `sluice worker run` gives the two queues a worker each.
- SIGTERM waits until running containers end, as Celery always does; SIGQUIT does not. The next start goes on with them.
- With `SLUICE_SLOTS=auto` and an engine on another machine that has more processors than this one, set the number.
- What is left to do is not logged at the end; `sluice worker status` says it.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from typing import Any

import structlog
from celery import bootsteps
from celery.signals import celeryd_init, setup_logging, worker_process_init

from chain.keystore import load_key
from config import logging
from config.celery_apps import machine_app
from config.processes.supervisor import Supervisor, die_with_parent
from config.settings import settings
from protocol.errors import SluiceError
from protocol.wire import SLOTS_LIMIT
from workers import machine
from workers.care import upkeep_process
from workers.context import Machine
from workers.pool.broker import connect, sign_in_if_refused

log = structlog.get_logger(__name__)

#: Processes beside one for each container: for an upload, and for a reveal or an abort.
SPARE_PROCESSES = machine.SPARE_PROCESSES + 1
#: Seconds for the upkeep process to sign off at the pool.
STOP_SECONDS = 30.0


def _most_slots(slots: int | str) -> int:
    """An upper bound of the machine's slots. Nothing is asked yet, so this host's processors stand for the engine's;
    processes beyond the slots wait idly.
    """
    return slots if isinstance(slots, int) else min(os.cpu_count() or 1, SLOTS_LIMIT)


app = machine_app(load_key(settings()).wallet)
app.conf.worker_concurrency = _most_slots(settings().slots) + SPARE_PROCESSES
#: Holds the machine's lock until this process ends.
_held = ExitStack()


@setup_logging.connect
@worker_process_init.connect
def _log(**_: Any) -> None:
    """Configure logging as in all processes; a listener of this signal keeps Celery from configuring its own."""
    logging.configure(settings(), process="worker")


@celeryd_init.connect
def _sign_in(instance: Any, **_: Any) -> None:
    """Celery calls it when a worker starts, before it connects."""
    if instance.app is not app:
        return
    _log()
    try:
        signed_in = _held.enter_context(machine.signed_in(settings()))
        connect(app, signed_in)
        sign_in_if_refused(app, signed_in)
    except SluiceError as error:
        # Celery logs what a signal's receiver raises, and goes on.
        sys.exit(str(error))
    UpkeepStep.machine = signed_in


class UpkeepStep(bootsteps.StartStopStep):
    """Part of the Celery worker: runs `workers.care.upkeep_process`, again if it ends, until the worker stops."""

    #: It stops before the pool, whose tasks may take long: the machine gets no new ones meanwhile.
    requires = ("celery.worker.components:Pool",)
    machine: Machine | None = None
    _process: ForkProcess | None = None

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's
        """Start the machine's upkeep in a process of its own; Celery calls it when the worker starts."""
        assert self.machine is not None
        self._process = get_context("fork").Process(target=_keep_up, args=(self.machine, os.getpid()), name="upkeep")
        self._process.start()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's
        """End the upkeep process; Celery calls it when the worker stops."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.join(STOP_SECONDS)

    def terminate(self, parent: Any) -> None:
        """End the upkeep as `stop` does; Celery calls it when the worker is ended at once."""
        self.stop(parent)


app.steps["worker"].add(UpkeepStep)


def _keep_up(own: Machine, worker: int) -> None:
    """Main of a process: keep the upkeep process running. When the machine stops, Celery's `worker` ends too."""
    die_with_parent()
    Supervisor({"upkeep": partial(upkeep_process.run, app, own)}, pid_dir=settings().home / "run").run()
    # The upkeep process ends its supervisor when another machine works with this wallet now.
    if os.getppid() == worker:
        os.kill(worker, signal.SIGTERM)
