"""Keeps one failing part of a machine from stopping the others."""

from __future__ import annotations

from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

#: Seconds after which a failure that repeats itself is logged again.
REPEAT_SECONDS = 3600.0


class LogThrottle:
    """Decides which log messages to write: each when it is new or has changed, then once every `every` seconds."""

    def __init__(self, every: float = REPEAT_SECONDS) -> None:
        self._every = every
        self._logged: dict[str, tuple[str, float]] = {}

    def should_log(self, subject: str, words: str, now: float) -> bool:
        """Whether to log `words` about `subject` now; if so, they are recorded as logged. `now`: seconds."""
        before = self._logged.get(subject)
        if before is not None and before[0] == words and now < before[1] + self._every:
            return False
        self._logged[subject] = (words, now)
        return True

    def forget(self, subject: str) -> bool:
        """Forget what was logged about `subject`; returns whether anything was."""
        return self._logged.pop(subject, None) is not None


class Attempts:
    """Runs parts of the upkeep so that a failing one does not stop the others; repeated failures are logged rarely."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds, any origin."""
        self._clock = clock
        self._throttle = LogThrottle()

    def run(self, part: str, act: Callable[[], object]) -> None:
        """Call `act`. An error is logged, the same one rarely, and not raised. `part`: what it does, for the log."""
        try:
            act()
        except Exception as error:
            if self._throttle.should_log(part, repr(error), self._clock()):
                log.exception(
                    "A part of this machine's upkeep failed; it is tried again.", action="part_failed", part=part
                )
            return
        if self._throttle.forget(part):
            log.info("A part of this machine's upkeep works again.", action="part_recovered", part=part)
