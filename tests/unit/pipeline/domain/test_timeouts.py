"""The scheduler's timeouts, as they follow from the settings."""

from __future__ import annotations

from pipeline.domain.replicas import Timeouts


def test_votes_that_wait_for_depth_twice_are_waited_for() -> None:
    assert Timeouts(1.0).contribute_timeout == Timeouts(1.0, spend_depth=12).contribute_timeout == 60.0
    assert Timeouts(5.0, spend_depth=12).contribute_timeout == Timeouts(5.0).contribute_timeout + 2 * 12 * 5.0
