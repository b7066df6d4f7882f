from __future__ import annotations

from pipeline.domain.replicas import Pace


def test_votes_that_wait_for_depth_twice_are_waited_for() -> None:
    assert Pace(1.0).contribute_patience == Pace(1.0, spend_depth=12).contribute_patience == 60.0
    assert Pace(5.0, spend_depth=12).contribute_patience == Pace(5.0).contribute_patience + 2 * 12 * 5.0
