"""Deadlines of a task, from its deal and category."""

from __future__ import annotations

from protocol.poco.deadlines import contribution_deadline, final_deadline, reveal_deadline
from protocol.types import Timestamp

START = Timestamp(1_700_000_000)


def test_the_deadlines_of_an_xs_task_are_35_and_50_minutes_after_the_deal() -> None:
    assert contribution_deadline(START, 300) - START == 35 * 60
    assert final_deadline(START, 300) - START == 50 * 60


def test_an_xs_task_is_revealed_within_10_minutes_of_consensus() -> None:
    assert reveal_deadline(START, 300) - START == 10 * 60


def test_the_shortest_category_leaves_7_10_and_2_seconds() -> None:
    assert (contribution_deadline(START, 1), final_deadline(START, 1), reveal_deadline(START, 1)) == (
        START + 7,
        START + 10,
        START + 2,
    )
