"""Turns that a bounded number of threads take and wait for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from config.http_server.turns import Turns
from tests.waiting import ample


def test_beyond_the_turns_and_those_that_may_wait_for_one_nobody_waits() -> None:
    turns = Turns(1, waiting=0)
    with turns.taken(0.0) as first, turns.taken(ample(600.0)) as second:
        assert (first, second) == (True, False)
    with turns.taken(0.0) as again:
        assert again, "what was taken was given back"


def test_a_turn_that_does_not_come_in_time_is_given_up_and_its_place_is_free() -> None:
    turns = Turns(1, waiting=1)
    with turns.taken(0.0):
        for _ in range(3):
            with turns.taken(0.0) as mine:
                assert not mine
    with turns.taken(0.0) as mine:
        assert mine


def test_who_waits_has_the_turn_once_it_is_given_back_also_by_an_error() -> None:
    turns = Turns(1, waiting=1)
    taken = threading.Event()

    def fail() -> None:
        with turns.taken(ample(10.0)) as mine:
            assert mine
            taken.set()
            raise ValueError

    with ThreadPoolExecutor(1) as threads, turns.taken(0.0):
        waits = threads.submit(fail)
        assert not taken.is_set()
    assert isinstance(waits.exception(), ValueError)
    assert taken.is_set()
    with turns.taken(0.0) as mine:
        assert mine
