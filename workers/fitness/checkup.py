"""Checks periodically whether this machine would be given work; logs each problem once, then every hour.

What keeps its votes from the chain is noted for the machine's other processes, which take no task while it lasts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import structlog

from config.whole_files import write_whole
from workers.attempt import LogThrottle
from workers.context import Machine
from workers.fitness import doctor, rules
from workers.fitness.rules import CheckResult

log = structlog.get_logger(__name__)

#: Seconds between two checks: a deposit is noticed soon, and three calls to the node a minute cost little.
CHECK_SECONDS = 60.0
#: Every so many checks, and at each while something is not right, also what changes rarely is checked: limits, the
#: connection to RabbitMQ, whether the node is on the pool's chain, and what a rollup takes on top of gas.
THOROUGH_EVERY = 10
#: Parts without which no vote reaches the chain, or none in time. What else is not right is met by the task itself.
BARRING = frozenset({"clock", "gas", "stake"})


class Checkup:
    """The periodic check of one machine. `clock`: Unix seconds; `examine`: yields findings, `thorough` or not;
    `steady`: seconds of a clock that is never set.
    """

    def __init__(
        self,
        machine: Machine,
        clock: Callable[[], float],
        examine: Callable[[Machine, float, bool], Iterator[CheckResult]] | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = machine
        self._clock, self._steady = clock, steady
        self._examine = examine or _examine
        self._throttle = LogThrottle()
        self._looks = 0
        #: Why no new task is begun, in words, by part.
        self._bars: dict[str, str] = {}
        #: Whether all was right at the last check.
        self._fit = True
        self._next = -math.inf

    def run_if_due(self) -> None:
        """Check if CHECK_SECONDS have passed; the upkeep thread calls it at every ping."""
        if self._steady() < self._next:
            return
        self._next = self._steady() + CHECK_SECONDS
        thorough = self._looks % THOROUGH_EVERY == 0 or not self._fit
        self._looks += 1
        self._fit = True
        for finding in self._examine(self._machine, self._clock(), thorough):
            self._note(finding, self._steady())
            self._fit = self._fit and finding.ok
            if finding.part == doctor.NETWORK:
                self._bar_apps(finding)
            elif finding.part in BARRING:
                self._bar_tasks(finding)

    def _bar_apps(self, finding: CheckResult) -> None:
        """Write the file that keeps this machine's processes from starting apps (`Layout.unconfined`); remove it if the
        packet filter confines apps (`finding`).
        """
        if finding.ok:
            self._machine.layout.unconfined.unlink(missing_ok=True)
        else:
            write_whole(self._machine.layout.unconfined, finding.says)

    def _bar_tasks(self, finding: CheckResult) -> None:
        """Write the file that keeps this machine's processes from taking tasks (`Layout.unfit`), with the reasons of
        all parts; remove it once no part has one. `finding`: on one of BARRING.
        """
        if finding.says.startswith(doctor.NOT_ASKED):
            return
        if finding.ok or (finding.part == "clock" and not rules.certainly_off(finding)):
            self._bars.pop(finding.part, None)
        else:
            self._bars[finding.part] = finding.says
        if self._bars:
            write_whole(self._machine.layout.unfit, "; ".join(self._bars.values()))
        else:
            self._machine.layout.unfit.unlink(missing_ok=True)

    def _note(self, finding: CheckResult, now: float) -> None:
        """Log a finding: once when a part becomes unfit, and once when it is fit again. `now`: of the steady clock."""
        if finding.says.startswith(doctor.NOT_ASKED):
            # Why is logged with the part that did not answer; of this one, nothing new is known.
            return
        if not finding.ok:
            # The words hold figures that always change: what was logged is that this part is not right.
            if self._throttle.should_log(finding.part, finding.part, now):
                log.error(f"Not fit to work: {finding.says}", action="not_fit", part=finding.part, **finding.numbers)
        elif self._throttle.forget(finding.part):
            log.info("Fit again.", action="fit_again", part=finding.part, says=finding.says)


def _examine(machine: Machine, now: float, thorough: bool) -> Iterator[CheckResult]:
    """The findings of a checkup; a thorough one asks more of node, engine and broker."""
    yield doctor.disk(machine.settings)
    yield doctor.packet_filter(machine)
    yield doctor.images(machine, now)
    yield from doctor.on_chain(machine, now, thorough=thorough)
    if thorough:
        yield doctor.limits(machine)
        yield doctor.broker(machine)
