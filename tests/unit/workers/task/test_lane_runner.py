"""When a run of a machine's lane looks at the chain anew, and what it need not ask for then."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from chain.rpc.announced import AnnouncedHead
from protocol.types import BlockNumber
from workers.care import upkeep_process
from workers.care.upkeep_process import LaneRunner
from workers.task import steps
from workers.task.replicate import ReplicateStage


class Wakeups:
    """As many wake-ups as there are numbers, each after so many heads."""

    def __init__(self, *heads: int, announces: bool = False) -> None:
        self._heads, self.announces = iter(heads), announces
        #: How often wake-ups that waited were taken together.
        self.drained = 0
        self.lane: LaneRunner

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            self.drained += 1
            return False
        heads = next(self._heads, None)
        put = self.lane.announced.begin() if heads else None
        for number in range(heads or 0):
            if self.announces and put is not None:
                put(BlockNumber(number), {"number": hex(number)})
            self.lane.note_head()
        return heads is not None


@pytest.fixture
def same(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each run that follows, whether it took the chain to be as in the last one."""
    said: list[bool] = []
    context = SimpleNamespace(now=lambda: 0.0, close=lambda: None)
    monkeypatch.setattr(upkeep_process, "WorkerContext", lambda _: context)
    monkeypatch.setattr(steps, "run_lane", lambda _, *, same_head, announced: said.append(same_head))
    return said


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Of each run that follows, the announced header that it got."""
    headers: list[Any] = []
    context = SimpleNamespace(now=lambda: 0.0, close=lambda: None)
    monkeypatch.setattr(upkeep_process, "WorkerContext", lambda _: context)
    monkeypatch.setattr(steps, "run_lane", lambda _, *, same_head, announced: headers.append(announced))
    return headers


def runner(wakeups: Wakeups, pace: float = 0.0) -> LaneRunner:
    listener: Any = wakeups
    machine: Any = None
    wakeups.lane = LaneRunner(machine, listener, threading.Event(), threading.Event(), pace)
    return wakeups.lane


def test_a_run_looks_at_the_chain_anew_after_each_head_and_only_then(same: list[bool]) -> None:
    runner(Wakeups(1, 0, 0, 2, 0)).run()
    assert same == [False, True, True, False, True]


class Waits(threading.Event):
    """Heads that come; how long each run waited for one."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        return self.is_set()


def test_runs_between_two_heads_keep_their_pace_and_take_what_came_meanwhile(same: list[bool]) -> None:
    wakeups, waits = Wakeups(0, 0, 0), Waits()
    lane = runner(wakeups, pace=3600.0)
    lane._head_came = waits
    lane.run()
    assert same == [True, True, True]
    assert wakeups.drained == 3
    first, *later = waits.waited
    assert first == 0.0
    assert all(3500.0 < seconds <= 3600.0 for seconds in later)


def test_a_head_does_not_wait_for_the_pace(same: list[bool]) -> None:
    # Real events: a wait of an hour would show.
    runner(Wakeups(1, 1, 2), pace=3600.0).run()
    assert same == [False, False, False]


def test_a_machine_that_stops_while_its_lane_keeps_the_pace_runs_it_no_more(same: list[bool]) -> None:
    wakeups = Wakeups(1, 1)
    lane = runner(wakeups, pace=3600.0)
    wait = lane._listener.wait

    def wait_and_stop(timeout: float | None = None) -> bool:
        if timeout is not None and same:
            lane._stop.set()
        return wait(timeout)

    lane._listener.wait = wait_and_stop  # type: ignore[method-assign]
    lane.run()
    assert same == [False]


def test_a_head_that_comes_while_a_run_begins_is_the_next_runs(same: list[bool]) -> None:
    class LateHead(threading.Event):
        """A head comes right after the first look for one."""

        late = True

        def is_set(self) -> bool:
            came = super().is_set()
            if self.late:
                self.late = False
                self.set()
            return came

    lane = runner(Wakeups(0, 0, 0))
    lane._head_came = LateHead()
    lane.run()
    assert same == [True, False, True]


def test_an_announced_header_is_used_by_one_run_and_a_head_that_was_polled_for_has_none(given: list[Any]) -> None:
    announcing = Wakeups(1, 0, 3, announces=True)
    runner(announcing).run()
    assert given == [AnnouncedHead({"number": "0x0"}), None, AnnouncedHead({"number": "0x2"})]
    runner(Wakeups(1)).run()
    assert given[3:] == [None]


def idle(*, busy: bool = False, stages: tuple[ReplicateStage, ...] = ()) -> Any:
    """What a lane's thread of heads has: a lane with open work or without, and a journal with votes at these stages."""
    replicates = [SimpleNamespace(stage=stage, solo=False) for stage in stages]
    return SimpleNamespace(
        journal=SimpleNamespace(all_replicates=lambda: replicates),
        lane_store=SimpleNamespace(busy=lambda _: busy),
        lane=SimpleNamespace(id=None),
    )


@pytest.mark.parametrize(
    ("context", "idle_lane"),
    [
        (idle(), True),
        (idle(stages=(ReplicateStage.RUNNING, ReplicateStage.REVEALED)), True),
        (idle(busy=True), False),
        (idle(stages=(ReplicateStage.COMMITTED,)), False),
    ],
    ids=["nothing", "nothing at stake", "a transaction", "a vote to reveal"],
)
def test_a_machine_follows_no_heads_while_none_can_matter(context: Any, idle_lane: bool) -> None:
    lane = runner(Wakeups())
    lane.stop_heads_if_idle(context)
    assert lane.needs_no_heads is idle_lane


def test_a_lane_without_heads_reads_the_chain_anew_when_it_is_woken_and_heads_are_followed_again(
    same: list[bool],
) -> None:
    lane = runner(Wakeups(1, 0, 0))
    wait = lane._listener.wait

    def wait_and_stop_heads(timeout: float | None = None) -> bool:
        if len(same) == 2:
            lane.stop_heads_if_idle(idle())
        return wait(timeout)

    lane._listener.wait = wait_and_stop_heads  # type: ignore[method-assign]
    lane.run()
    assert same == [False, True, False]
    assert lane.woken_within(0.0)
    lane.stop_heads_if_idle(idle(busy=True))
    assert not lane.needs_no_heads


def test_a_machine_that_stops_while_its_lane_becomes_idle_does_not_wait() -> None:
    lane = runner(Wakeups())
    lane._stop.set()
    lane._woken.set()
    lane.stop_heads_if_idle(idle())
    assert lane.woken_within(3600.0)


def test_heads_are_followed_again_for_open_work_whose_wake_up_was_lost() -> None:
    lane = runner(Wakeups())
    lane.stop_heads_if_idle(idle())
    lane.follow_heads_if_busy(idle())
    assert not lane.woken_within(0.0)
    lane.follow_heads_if_busy(idle(busy=True))
    assert lane.woken_within(0.0)
