"""The pipe that wakes the machine's lane."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.care.lane_wakeup import LaneWakeup


@pytest.fixture
def wakeup(tmp_path: Path) -> LaneWakeup:
    return LaneWakeup(tmp_path / "lane.wake")


def test_a_wakeup_without_a_consumer_is_lost_silently(wakeup: LaneWakeup) -> None:
    wakeup.notify()
    with wakeup.listen():
        pass
    wakeup.notify()
    with wakeup.listen() as listener:
        assert not listener.wait(timeout=0)


def test_wakeups_that_wait_together_are_one(wakeup: LaneWakeup) -> None:
    with wakeup.listen() as listener:
        # More than a pipe holds.
        for _ in range(70_000):
            wakeup.notify()
        assert listener.wait(timeout=0)
        assert not listener.wait(timeout=0)
        wakeup.notify()
        assert listener.wait(timeout=0)


def test_another_process_wakes_the_one_that_listens(wakeup: LaneWakeup) -> None:
    with wakeup.listen() as listener:
        child = os.fork()
        if child == 0:
            wakeup.notify()
            os._exit(0)
        os.waitpid(child, 0)
        assert listener.wait(timeout=0)


def test_what_a_restored_backup_left_in_place_of_the_pipe_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "lane.wake"
    path.write_text("")
    wakeup = LaneWakeup(path)
    with wakeup.listen() as listener:
        wakeup.notify()
        assert listener.wait(timeout=0)
