"""A disk that is full is known by what it did not take."""

from __future__ import annotations

from pipeline.api.results.refusals import Refusals


def test_a_refusal_is_told_with_its_age_until_a_result_is_stored() -> None:
    moment = [100.0]
    refusals = Refusals(lambda: moment[0])
    assert refusals.facts() is None
    refusals.refused("no space left on device")
    moment[0] = 107.0
    found = refusals.facts()
    assert found is not None
    assert (found.refused_since, found.why) == (7.0, "no space left on device")
    refusals.stored()
    assert refusals.facts() is None
