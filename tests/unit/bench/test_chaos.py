"""The plan of `bench chaos` is a function of its arguments, and its figures name every promise that was broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.chaos.figures import JUDGED_SECONDS, Figures, duplicates, failed_by, held_up_by, worst_delay
from bench.chaos.plan import DEEPEST, LONGEST, SHORTEST, TARGETS, Kind, make_plan
from protocol.types import TaskId
from tests.unit.pipeline.builders import (
    CONSENSUS,
    TASK,
    claimed,
    initialized,
    reopened,
    revealed,
    view,
    voted,
    wallet,
)

SEEDS = st.integers(0, 2**31)
GOOD = Figures(
    tasks=60,
    completed=60,
    failed_claimed=0,
    failed_by_strangers=0,
    duplicates=0,
    reverts=3,
    nonce_gaps=0,
    stake_locked=0,
    database_differs=0,
    worst_delay_seconds=61.5,
    seconds=200.0,
    undisturbed_seconds=140.0,
    seed=1,
    held_up=2,
    seconds_not_held_up=280.0,
)


@given(SEEDS, st.integers(1, 300), st.sampled_from([1.0, 5.0, 7.5]))
def test_the_same_seed_tasks_and_pace_give_the_same_plan(seed: int, tasks: int, every: float) -> None:
    assert make_plan(seed, tasks, every) == make_plan(seed, tasks, every)


@given(SEEDS)
def test_another_seed_number_of_tasks_or_pace_gives_another_plan(seed: int) -> None:
    plan = make_plan(seed, 60, 5)
    assert plan != make_plan(seed + 1, 60, 5)
    assert [strike.target for strike in plan] != [strike.target for strike in make_plan(seed, 120, 5)][: len(plan)]
    assert [strike.target for strike in plan] != [strike.target for strike in make_plan(seed, 60, 2.5)][: len(plan)]


@given(SEEDS)
def test_every_kind_strikes_before_any_strikes_again(seed: int) -> None:
    plan = make_plan(seed, 60, 5)
    for first in range(0, len(plan) - len(Kind), len(Kind)):
        assert {strike.kind for strike in islice(plan, first, first + len(Kind))} == set(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_every_target_of_a_kind_is_struck_before_any_is_struck_again(kind: Kind) -> None:
    struck = [strike.target for strike in make_plan(1, 300, 5) if strike.kind is kind]
    count = min(len(struck), len(TARGETS[kind]))
    assert len(set(struck[:count])) == count


@given(SEEDS, st.sampled_from([2.0, 5.0]))
def test_a_plan_strikes_at_its_pace_and_each_fault_ends(seed: int, every: float) -> None:
    plan = make_plan(seed, 30, every)
    assert [strike.at for strike in plan] == [every * number for number in range(1, len(plan) + 1)]
    assert all(strike.lasts == 0 or SHORTEST <= strike.lasts <= LONGEST for strike in plan)
    assert {strike.blocks for strike in plan if strike.kind is Kind.REORG} <= set(range(1, DEEPEST + 1))


def test_the_delay_is_between_the_tasks_that_end_as_the_nth() -> None:
    assert worst_delay([30.0, 10.0, 50.0], [10.0, 20.0, 30.0]) == 20.0


def test_a_run_that_was_nowhere_later_has_no_delay() -> None:
    assert worst_delay([1.0, 2.0], [2.0, 3.0]) == 0.0
    assert worst_delay([], [2.0]) == 0.0


def test_a_machine_that_starts_a_tasks_container_twice_is_a_duplicate() -> None:
    first, other = TaskId("0x1"), TaskId("0x2")
    starts = Counter({(first, "a"): 2, (first, "b"): 1, (other, "a"): 3})
    (said,) = duplicates(starts, [first])
    assert said == "Task 0x1: wallet a started its container 2 times."


def test_a_good_run_breaks_no_promise() -> None:
    assert list(GOOD.wrong()) == []
    assert list(replace(GOOD, completed=59, failed_claimed=1, failed_by_strangers=1).wrong()) == []


def test_a_run_that_is_as_short_as_a_servers_restart_is_not_judged_by_its_length() -> None:
    short = replace(GOOD, undisturbed_seconds=JUDGED_SECONDS - 1, seconds_not_held_up=900.0)
    assert list(short.wrong()) == []


def test_a_task_failed_by_strangers_only_if_they_alone_had_agreed() -> None:
    ended = view(*CONSENSUS, claimed())
    assert failed_by({wallet(1), wallet(2), wallet(3)}, [ended]) == {TASK}
    assert failed_by({wallet(1), wallet(2)}, [ended]) == set()
    assert failed_by({wallet(1)}, [view(initialized(), voted(1), claimed()), view(*CONSENSUS)]) == set()


def test_a_task_is_held_up_by_strangers_whose_winning_vote_is_not_revealed() -> None:
    strangers = {wallet(1), wallet(2)}
    assert held_up_by(strangers, [view(*CONSENSUS)]) == {TASK}
    assert held_up_by(strangers, [view(*CONSENSUS, reopened())]) == {TASK}
    assert held_up_by(strangers, [view(*CONSENSUS, revealed(1), revealed(2))]) == set()
    assert held_up_by({wallet(9)}, [view(*CONSENSUS)]) == set()
    assert held_up_by(strangers, [view(initialized(), voted(1))]) == set()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"completed": 58}, "2 of 60 tasks have not ended"),
        ({"completed": 59, "failed_claimed": 1}, "1 of 60 tasks FAILED"),
        ({"duplicates": 2}, "duplicates: 2"),
        ({"nonce_gaps": 1}, "nonce_gaps: 1"),
        ({"stake_locked": 30}, "stake_locked: 30"),
        ({"database_differs": 1}, "database_differs: 1"),
        ({"seconds_not_held_up": 280.1}, "280.1 s, more than 2 times the undisturbed time"),
    ],
)
def test_each_broken_promise_is_said_in_words(broken: dict[str, float], words: str) -> None:
    (said,) = replace(GOOD, **broken).wrong()  # type: ignore[arg-type]
    assert words in said
