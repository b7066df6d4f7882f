"""When steps may go out early: not for a while once too many of them reverted, and never for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chain.lane.rules.early import LEAST, LONGEST, PAUSE, SHARE, WINDOW, EarlyGuard
from protocol.types import BlockNumber

#: What became of the early steps of one run: how many succeeded, how many reverted.
RUNS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=60)


def at(number: int) -> BlockNumber:
    return BlockNumber(number)


def test_a_new_guard_is_open() -> None:
    assert EarlyGuard().is_open(at(0))


def test_as_many_reverts_as_say_nothing_yet_leave_it_open_and_one_more_closes_it() -> None:
    guard = EarlyGuard().after(0, LEAST, at(10))
    assert guard.is_open(at(10))
    guard = guard.after(0, 1, at(11))
    assert not guard.is_open(at(11))
    assert not guard.is_open(at(11 + PAUSE - 1))
    assert guard.is_open(at(11 + PAUSE))


def test_the_share_decides_once_a_window_is_full() -> None:
    most = int(SHARE * WINDOW)
    guard = EarlyGuard().after(WINDOW - most, most, at(10))
    assert guard.is_open(at(10))
    assert not guard.after(0, 1, at(10)).is_open(at(10))


def test_each_pause_in_a_row_is_twice_as_long_up_to_the_longest_and_a_good_window_makes_it_short_again() -> None:
    guard, head, lengths = EarlyGuard(), at(10), []
    for _ in range(12):
        guard = guard.after(0, LEAST + 1, head)
        lengths.append(guard.opens_at - head)
        head = guard.opens_at
    assert lengths[:3] == [PAUSE, 2 * PAUSE, 4 * PAUSE]
    assert lengths[-1] == LONGEST
    guard = guard.after(WINDOW, 0, head).after(0, int(SHARE * WINDOW) + 1, head)
    assert guard.opens_at == head + PAUSE


def test_steps_that_went_out_before_a_pause_do_not_make_it_longer() -> None:
    guard = EarlyGuard().after(0, LEAST + 1, at(100))
    for head in (101, 102, 103):
        guard = guard.after(0, LEAST + 1, at(head))
    assert guard.opens_at == at(100 + PAUSE)


@given(RUNS)
def test_while_it_is_open_no_more_than_the_share_of_the_last_steps_reverted(runs: list[tuple[int, int]]) -> None:
    guard, head = EarlyGuard(), at(0)
    for succeeded, reverted in runs:
        head = at(max(head + 1, guard.opens_at))
        assert guard.is_open(head)
        guard = guard.after(succeeded, reverted, head)
        assert len(guard.ended) <= WINDOW
        assert not guard.is_open(head) or guard.ended.count(False) <= max(LEAST, SHARE * len(guard.ended))


@given(RUNS)
def test_it_always_opens_again(runs: list[tuple[int, int]]) -> None:
    guard, head = EarlyGuard(), at(0)
    for succeeded, reverted in runs:
        head = at(head + 1)
        guard = guard.after(succeeded, reverted, head)
        assert guard.is_open(at(head + LONGEST))


@given(RUNS)
def test_steps_that_succeed_never_close_it(runs: list[tuple[int, int]]) -> None:
    guard = EarlyGuard()
    for number, (succeeded, _) in enumerate(runs):
        guard = guard.after(succeeded, 0, at(number))
        assert guard.is_open(at(number))
