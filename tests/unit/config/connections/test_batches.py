from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from config.http_server.batches import Batches
from protocol.errors import Unavailable
from tests.waiting import ample, wait_until

WAIT = ample(60.0)


class Server:
    """What does items together; the first call lasts until `go` is set. `done`: the items of each call."""

    def __init__(self, most: int = 10) -> None:
        self.done: list[list[str]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.batches: Batches[str] = Batches(self.act, what="it", most=most)

    def act(self, items: Sequence[str]) -> list[Exception | None]:
        """Do these; a `bad` one fails, and one that is `fatal` fails all."""
        self.done.append(list(items))
        self.begun.set()
        assert self.go.wait(WAIT)
        if "fatal" in items:
            raise ValueError("fatal")
        return [KeyError(item) if item == "bad" else None for item in items]

    def add(self, threads: ThreadPoolExecutor, *items: str) -> list[Future[None]]:
        """Ask for these in threads of their own; returns once one call is under way and all others wait for it."""
        asked = [threads.submit(self.batches.add, item, seconds=WAIT) for item in items]
        assert self.begun.wait(WAIT)
        wait_until(lambda: len(self.batches._waiting) == len(items) - 1, WAIT, what="the others to wait")
        return asked


def test_what_is_asked_for_while_one_is_under_way_is_done_together_afterwards() -> None:
    server = Server()
    with ThreadPoolExecutor(4) as threads:
        asked = server.add(threads, "a", "b", "c", "d")
        server.go.set()
        for one in asked:
            one.result(WAIT)
    first, then = server.done
    assert len(first) == 1
    assert {*first, *then} == {"a", "b", "c", "d"}


def test_each_is_told_its_own_failure_and_all_what_failed_for_all() -> None:
    server = Server()
    server.go.set()
    with pytest.raises(KeyError):
        server.batches.add("bad", seconds=WAIT)
    server.batches.add("good", seconds=WAIT)
    with pytest.raises(ValueError, match="fatal"):
        server.batches.add("fatal", seconds=WAIT)
    server.batches.add("good", seconds=WAIT)


def test_a_failure_for_all_reaches_those_that_waited_and_no_later_one() -> None:
    server = Server()
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(server.batches.add, "a", seconds=WAIT)
        assert server.begun.wait(WAIT)
        others = [threads.submit(server.batches.add, item, seconds=WAIT) for item in ("b", "fatal")]
        wait_until(lambda: len(server.batches._waiting) == 2, WAIT, what="the others to wait")
        server.go.set()
        first.result(WAIT)
        assert all(isinstance(other.exception(WAIT), ValueError) for other in others)
    server.batches.add("good", seconds=WAIT)


def test_beyond_those_that_may_wait_nobody_does() -> None:
    server = Server(most=2)
    with ThreadPoolExecutor(2) as threads:
        asked = server.add(threads, "a", "b")
        with pytest.raises(Unavailable, match="too many ask at once"):
            server.batches.add("c", seconds=WAIT)
        server.go.set()
        for one in asked:
            one.result(WAIT)
    server.batches.add("c", seconds=WAIT)
    assert server.done[-1] == ["c"]


def test_one_that_is_not_begun_in_time_is_given_up_and_its_place_is_free() -> None:
    server = Server(most=2)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(server.batches.add, "a", seconds=WAIT)
        assert server.begun.wait(WAIT)
        for _ in range(3):
            with pytest.raises(Unavailable, match="too many ask at once"):
                server.batches.add("late", seconds=0.0)
        server.go.set()
        first.result(WAIT)
    assert server.done == [["a"]]
