"""Goes on with assignments whose message was lost, in threads of the process `upkeep`."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from functools import partial

from protocol.errors import EngineUnavailable
from workers.attempt import Attempts
from workers.context import Machine, WorkerContext
from workers.task import chain
from workers.task.replicate import Replicate


class Resumer:
    """Continues replicates in threads, as many at a time as the machine has slots. The pool counts such a task among
    those that this machine holds, so no more containers run than slots.

    The threads end with their process, whose next start goes on with the task.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._free = threading.Semaphore(_at_once(machine))

    def resume(self, replicate: Replicate) -> bool:
        """Begin a thread that goes on with this replicate; False if all threads are busy."""
        if not self._free.acquire(blocking=False):
            return False
        threading.Thread(target=self._run, args=(replicate,), name="resume", daemon=True).start()
        return True

    def _run(self, replicate: Replicate) -> None:
        """The thread: carry on with one task."""
        try:
            # SQLite's and Docker's connections are this thread's own.
            with closing(WorkerContext(self._machine)) as context:
                act = partial(chain.do_assignment, context, replicate.assignment)
                Attempts(time.monotonic).run(f"resume {replicate.task_id}", act)
        finally:
            self._free.release()


def _at_once(machine: Machine) -> int:
    """How many replicates to continue at a time: the machine's slots; 1 while its engine does not answer."""
    try:
        return machine.slots.count
    except EngineUnavailable:
        return 1
