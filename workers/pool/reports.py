"""Reports to the pool, sent in the background: a slow or absent API never delays a container or a vote.

A report is a hint (the chain decides), so a lost one costs latency only. One thread per process, started with the first
report; it drops a report after TRIES attempts, and sends what is queued, within FLUSH_SECONDS, when the process ends.

    STARTED ──kept back──► START_SECONDS later, sent
                     └───► the task is computed or has failed by then: that report tells how long it took, and no other
                           is sent
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from config.metrics import REPORTS
from protocol.errors import BadInput, PoolUnavailable
from protocol.types import TaskId
from protocol.wire import LOG_TAIL_CHARACTERS, Report, Step
from workers.attempt import Attempts

log = structlog.get_logger(__name__)

#: Over about 12 s, longer than the API takes to restart.
TRIES = 6
#: Seconds for which the start of a task is kept back: half a report's cost is saved for tasks that take no longer. Well
#: below the 5 s after which the pool asks again for what was not begun.
START_SECONDS = 3.0
#: Reports that may wait; more mean that the API has been away for long, and the sweep will ask.
WAITING = 1000
#: Seconds a process that ends gives to its last reports.
FLUSH_SECONDS = 5.0


class Api(Protocol):
    """The part of the pool's API that reports need."""

    def report(self, task_id: TaskId, report: Report) -> None:
        """Deliver one report."""


class Reports:
    """Sends reports in order, one after the other."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._attempts = Attempts(time.monotonic)
        #: Starts that are kept back, oldest first, and until when by the monotonic clock. Only the thread uses it.
        self._starts: dict[TaskId, tuple[float, Report]] = {}

    def send(self, task_id: TaskId, report: Report) -> None:
        """Queue one report and return; that of a start may be left out."""
        self.later(lambda: self._take(task_id, report))

    def later(self, act: Callable[[], None]) -> None:
        """Run `act` in the same thread after the queued reports, e.g. remove a container; what it raises is logged."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="reports", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(act)
        except queue.Full:
            log.warning("Too many reports wait; dropping one.", action="report_dropped")

    def close(self) -> None:
        """Send what is queued, for at most FLUSH_SECONDS."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(None)
            self._thread.join(FLUSH_SECONDS)

    def _work(self) -> None:
        """The thread: send reports in order until `close`."""
        while True:
            try:
                act = self._waiting.get(timeout=self._until_start())
            except queue.Empty:
                act = self._send_start
            if act is None:
                break
            # What raises must not end the thread: the other reports wait for it.
            self._attempts.run("reports", act)
        while self._starts:
            self._attempts.run("reports", self._send_start)

    def _until_start(self) -> float | None:
        """Seconds until a start is to be sent; None if none is kept back."""
        due = next((at for at, _ in self._starts.values()), None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _send_start(self) -> None:
        """Send the oldest report that a task has started."""
        task_id = next(iter(self._starts))
        self._deliver(task_id, self._starts.pop(task_id)[1])

    def _take(self, task_id: TaskId, report: Report) -> None:
        """Deliver a report. One of a start is kept back for START_SECONDS instead, and left out if the task's end is
        reported by then.
        """
        if report.step is Step.STARTED:
            self._starts[task_id] = (time.monotonic() + START_SECONDS, report)
            return
        start = self._starts.pop(task_id, None)
        if start is not None and report.step not in (Step.COMPUTED, Step.FAILED):
            self._deliver(task_id, start[1])
        self._deliver(task_id, report)

    def _deliver(self, task_id: TaskId, report: Report) -> None:
        """Send a report, several times if need be; one that fails is logged and given up."""
        retrying = Retrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential_jitter(multiplier=0.2, max=5.0),
            retry=retry_if_exception_type(PoolUnavailable),
            reraise=True,
        )
        try:
            retrying(self._api.report, task_id, report)
        except (PoolUnavailable, BadInput) as error:
            log.warning("Report not delivered.", action="report_lost", task=task_id, step=report.step, why=str(error))
        else:
            REPORTS.labels(report.step).inc()


def tail(output: bytes) -> str | None:
    """The last characters of an app's output, as a report carries them; None for no output."""
    text = output.decode("utf-8", "replace")
    return text[-LOG_TAIL_CHARACTERS:] or None
