"""Checks the pool's health in a background thread, so that a request for it never waits for a server that is down.

    thread: every few seconds, or at a request ─► facts ─► report ─► requests that wait for one
                                                              ├─► log: once when a part turns red, once when it is well
                                                              └─► holding? (`domain.condition.holding`) log, and store

However many requests come, the servers are asked at most once in FRESH_SECONDS.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from typing import Protocol

import structlog

from pipeline.domain.condition import health
from pipeline.domain.condition.facts import BrokerFacts, ExpectedPool, Facts
from pipeline.domain.condition.health import START_SECONDS, HealthPart
from pipeline.domain.condition.holding import holding

log = structlog.get_logger(__name__)

#: Seconds between two checks without a request: trouble should be in the log soon.
CHECK_SECONDS = 10.0
#: The same until the pool is up, when everything changes.
FIRST_CHECKS_SECONDS = 1.0
#: Seconds a report is given again: monitors ask every 5 s or more.
FRESH_SECONDS = 2.0
#: Parts without which nothing can be served; once all are well, the pool is up.
SERVING = ("mongodb", "rabbitmq", "chain", "watcher")
#: Parts that come after the scheduler itself: not logged as long as it has only just started.
LATE = frozenset({"workers"})


class Asks(Protocol):
    """What asks the servers (`pipeline.probes.Probes`), as this module uses it."""

    @property
    def pool(self) -> ExpectedPool:
        """What the pool is meant to be."""

    def ask(self, *, running: bool) -> Facts:
        """What every server answers now; returns within a bounded time. `running`: as for `Probes.ask`."""

    def close(self) -> None:
        """Close the connections to the servers."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The pool begins no new work since `since` (Unix seconds), and goes on by itself."""

    since: float
    why: str


@dataclass(frozen=True, slots=True)
class HealthReport:
    """How the pool was at a moment. `at`: monotonic seconds."""

    at: float
    facts: Facts
    parts: Mapping[str, HealthPart]
    #: None: the pool takes work.
    hold: Hold | None = None

    @property
    def ok(self) -> bool:
        """Whether every part can do its share."""
        return all(part.ok for part in self.parts.values())


class Monitor:
    """The pool's health, checked by one daemon thread that starts when first asked (so after any fork)."""

    def __init__(
        self,
        probes: Asks,
        up: Callable[[], None],
        hold: Callable[[str | None], None] = lambda _: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`up` is called once, when all of SERVING are well for the first time; `hold` after each check at which the
        pool holds, with the reason, and once when that is over, with None.
        """
        self._probes, self._up, self._hold, self._clock = probes, up, hold, clock
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting: list[Future[HealthReport]] = []
        self._stopping = False
        self._red: set[str] = set()
        #: Since when each part that is not well has been so, by `clock`.
        self._red_since: dict[str, float] = {}
        self._was_up = False
        #: The last report; None before the first.
        self.last: HealthReport | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the last report; None before the first."""
        last = self.last
        return None if last is None else self._clock() - last.at

    def start(self) -> None:
        """Start the thread, also again if it died."""
        with self._changed:
            if not self._stopping and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(
                    target=copy_context().run, args=(self._run,), name="health", daemon=True
                )
                self._thread.start()

    def report(self) -> Future[HealthReport]:
        """A report on the pool's health no older than FRESH_SECONDS: the last one, or the next that the
        thread makes.
        """
        self.start()
        found: Future[HealthReport] = Future()
        with self._changed:
            if self.last is not None and self._clock() < self.last.at + FRESH_SECONDS:
                found.set_result(self.last)
            else:
                self._waiting.append(found)
                self._changed.notify_all()
        return found

    def close(self) -> None:
        """End the thread and close the connections; the API calls it when it ends."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=FRESH_SECONDS)
        self._probes.close()

    def look(self) -> HealthReport:
        """Ask the servers once; log, store and hand out the report. Called by the thread."""
        facts, before = self._probes.ask(running=True), self.last
        now, parts = self._clock(), health.parts(facts, self._probes.pool)
        self._red_since = {name: self._red_since.get(name, now) for name, part in parts.items() if not part.ok}
        held = None if before is None else before.hold
        why = holding(parts, self._red_since, now, held=held is not None)
        hold = None if why is None else Hold(facts.now if held is None else held.since, why)
        report = HealthReport(now, facts, parts, hold)
        with self._changed:
            self.last = report
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            # False if the request was cancelled.
            if future.set_running_or_notify_cancel():
                future.set_result(report)
        self._log_changes(report)
        self._tell_hold(held, hold, facts.now)
        return report

    def _run(self) -> None:
        """The thread: check the pool's health again and again until `close`."""
        while not self._ends():
            try:
                report = self.look()
            except RuntimeError:
                # A check that outlasted `close`, which waits for no server that hangs: its threads take no more work.
                if self._ends():
                    return
                raise
            pause = CHECK_SECONDS if self._was_up or report.facts.watched > START_SECONDS else FIRST_CHECKS_SECONDS
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._waiting, timeout=pause)

    def _ends(self) -> bool:
        """Whether `close` was called, by another thread."""
        return self._stopping

    def _tell_hold(self, before: Hold | None, after: Hold | None, now: float) -> None:
        """Log that a hold began or ended, and call `hold`, which stores it for the other processes."""
        if after is not None and before is None:
            log.warning("The pool holds: it begins nothing new until this is over.", action="pool_holds", why=after.why)
        if before is not None and after is None:
            held = round(now - before.since)
            log.info("The pool goes on.", action="pool_goes_on", held_seconds=held, why=before.why)
        if before is not None or after is not None:
            self._hold(None if after is None else after.why)

    def _log_changes(self, report: HealthReport) -> None:
        """Log what changed since the last report."""
        for name, part in report.parts.items():
            if part.ok and name in self._red:
                self._red.discard(name)
                log.info("A part of the pool is well again.", action="health_well", part=name, detail=part.detail)
            elif not part.ok and name not in self._red and (name not in LATE or report.facts.watched > START_SECONDS):
                self._red.add(name)
                log.error("The pool cannot do its work.", action="health_red", part=name, why=part.detail, fix=part.fix)
        if self._was_up or not all(name in report.parts and report.parts[name].ok for name in SERVING):
            return
        if isinstance(report.facts.broker, BrokerFacts) and not report.facts.broker.unread:
            self._was_up = True
            self._up()
