"""One value per process, on both sides of a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from multiprocessing import get_context

import pytest

from config.processes.per_process import PerProcess


def _in_child(call: Callable[[], int]) -> int:
    """What `call` returns in a forked child (0 to 99); an exception is 100."""

    def main() -> None:
        try:
            code = call()
        except BaseException:  # noqa: BLE001 - the child must not go on as a second pytest
            code = 100
        os._exit(code)

    child = get_context("fork").Process(target=main)
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def test_a_process_makes_its_value_once() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    one = PerProcess(make)
    assert one.known() is None
    assert one.get() is one.get() is one.known()
    assert len(made) == 1


def test_a_forked_child_makes_its_own_and_does_not_touch_its_parents() -> None:
    class Connection:
        def __init__(self) -> None:
            self.owner = os.getpid()

        def __del__(self) -> None:
            # Seen by the test as the child's exit code.
            if self.owner != os.getpid():
                os._exit(99)

    one = PerProcess(Connection)
    own = one.get()
    assert _in_child(lambda: int(one.known() is None)) == 1

    def child() -> int:
        # Forgets and closes its own only, whatever happens to the variables of the parent.
        nonlocal own
        del own
        mine = one.get()
        one.forget()
        return int(mine.owner == os.getpid() and one.known() is None)

    assert _in_child(child) == 1
    assert one.get().owner == os.getpid()


def test_what_was_forgotten_is_made_anew() -> None:
    one = PerProcess(object)
    before = one.get()
    assert one.forget() is before
    assert one.forget() is None
    assert one.get() is not before


def test_a_failure_to_make_it_is_not_remembered() -> None:
    answers: Iterator[int | ValueError] = iter([ValueError("not yet"), 7])

    def make() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    one = PerProcess(make)
    with pytest.raises(ValueError, match="not yet"):
        one.get()
    assert one.get() == 7


def test_of_two_threads_that_ask_first_both_get_the_same_and_the_other_is_discarded() -> None:
    barrier = threading.Barrier(2)
    discarded: list[object] = []
    got: list[object] = []

    def make() -> object:
        barrier.wait()
        return object()

    one = PerProcess(make, discarded.append)
    threads = [threading.Thread(target=lambda: got.append(one.get())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] is got[1] is one.get()
    assert len(discarded) == 1
    assert discarded[0] is not got[0]
