"""The health of each node of several: who is asked first, who pauses and for how long."""

from __future__ import annotations

import pytest

from chain.rpc.health import MOST_LAG, PAUSE_LAST, NodeHealth, order, usable
from protocol.types import BlockNumber


def at(head: int, *, seconds: float = 0.01) -> NodeHealth:
    return NodeHealth().checked(BlockNumber(head), seconds, right_chain=True)


def test_the_present_node_is_kept_while_it_is_good() -> None:
    assert order([at(10, seconds=0.001), at(10, seconds=0.004)], current=1) == [1, 0]


def test_a_much_slower_node_is_left_for_the_fastest() -> None:
    assert order([at(10, seconds=0.001), at(10, seconds=0.1)], current=1) == [0, 1]


def test_a_node_that_failed_once_is_not_asked() -> None:
    assert order([at(10).failed(now=0.0), at(10)], current=0) == [1]


def test_an_answer_makes_a_failing_node_good_again() -> None:
    assert usable([at(10).failed(now=0.0).failed(now=1.0).answered()]) == [0]


@pytest.mark.parametrize(("behind", "asked"), [(MOST_LAG, [0, 1]), (MOST_LAG + 1, [0])])
def test_a_node_too_far_behind_the_best_is_not_asked(behind: int, asked: list[int]) -> None:
    assert usable([at(100), at(100 - behind)]) == asked


def test_a_node_on_another_chain_is_never_asked_and_its_head_counts_for_nothing() -> None:
    stranger = NodeHealth().checked(BlockNumber(10_000), 0.01, right_chain=False)

    assert order([stranger, at(5)], current=0) == [1]
    assert order([stranger], current=0) == []


def test_if_none_is_good_the_one_that_failed_longest_ago_is_tried() -> None:
    assert order([at(10).failed(now=5.0), at(10).failed(now=2.0)], current=0) == [1]


def test_pauses_double_up_to_the_longest() -> None:
    node = at(10)
    pauses = []
    for _ in range(8):
        node = node.failed(now=0.0)
        pauses.append(node.paused_until)

    assert pauses == [1, 2, 4, 8, 16, 32, PAUSE_LAST, PAUSE_LAST]


def test_a_node_that_fails_for_hours_pauses_as_long_as_before() -> None:
    """Each call of an outage counts: hours of it are thousands of failures in a row."""
    node = at(10)
    for _ in range(5000):
        node = node.failed(now=7.0)

    assert node.paused_until == 7.0 + PAUSE_LAST


def test_latency_is_the_median_of_the_last_checks() -> None:
    node = NodeHealth()
    for seconds in (0.01, 0.01, 9.0):
        node = node.checked(BlockNumber(1), seconds, right_chain=True)

    assert node.latency == 0.01


def test_big_answers_do_not_make_a_node_look_slow() -> None:
    """Only checks are timed, which ask every node the same."""
    node = at(10, seconds=0.01)

    assert node.answered().latency == node.latency


def test_a_node_that_has_not_said_its_chain_is_not_asked_whatever_else_is_wrong() -> None:
    assert order([NodeHealth(), at(10).failed(now=0.0)], current=0) == [1]
    assert order([NodeHealth(), NodeHealth().failed(now=0.0)], current=0) == []
