"""Who comes and goes in `bench workerdrop` is a function of its arguments; a machine that was not woken is counted."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bench.crowds.workerdrop import LEAST_SECONDS, WAKE_SECONDS, Presence, make_visits, told
from pipeline.domain.records import Replicate
from protocol.types import TaskId, Wallet
from protocol.wire import Mode

TASK, WALLET = TaskId("0x01"), Wallet("0xaa")
#: When the replicate was assigned.
AT = 1000.0


def replicate() -> Replicate:
    return Replicate(WALLET, Mode.VOTE, weight=2, assigned_at=AT)


@given(st.integers(0, 2**31), st.integers(1, 20), st.floats(10, 600))
def test_the_same_seed_gives_the_same_visits(seed: int, machines: int, seconds: float) -> None:
    assert make_visits(seed, machines, seconds) == make_visits(seed, machines, seconds)


@given(st.integers(0, 2**31), st.floats(10, 600))
def test_a_machine_joins_at_once_comes_and_goes_and_is_there_at_the_end(seed: int, seconds: float) -> None:
    (visits,) = make_visits(seed, 1, seconds)
    assert visits[0].joins == 0
    assert visits[-1].leaves == seconds
    for earlier, later in pairwise(visits):
        assert earlier.leaves >= earlier.joins + LEAST_SECONDS
        assert later.joins >= earlier.leaves + LEAST_SECONDS


def test_different_machines_come_and_go_at_different_times() -> None:
    visits = make_visits(1, 50, 600)
    assert len(set(visits)) == len(visits)


def test_a_machine_that_stayed_and_was_never_told_lost_its_wake_up() -> None:
    presence = Presence({WALLET: [(AT - 1, None)]})
    assert told([(TASK, replicate())], {}, presence) == (1, [])


def test_a_machine_that_was_told_counts_with_the_time_it_took() -> None:
    presence = Presence({WALLET: [(AT - 1, AT + WAKE_SECONDS)]})
    assert told([(TASK, replicate())], {(TASK, WALLET): AT + 0.25}, presence) == (0, [0.25])


def test_a_machine_that_left_meanwhile_or_came_later_lost_nothing() -> None:
    for stay in ((AT - 1, AT + WAKE_SECONDS - 1), (AT + 1, None)):
        assert told([(TASK, replicate())], {}, Presence({WALLET: [stay]})) == (0, [])
