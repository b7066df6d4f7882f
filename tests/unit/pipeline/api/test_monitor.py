"""The monitor: one look for all who ask, and one line in the log for each change."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import structlog

from pipeline.api.monitor import Monitor
from pipeline.domain.condition.facts import BrokerFacts, DatabaseFacts, ExpectedPool, Facts, IpfsFacts, NoAnswer
from pipeline.domain.condition.holding import HOLD_SECONDS
from protocol.types import Contract, Wallet
from tests.waiting import ample

POOL = ExpectedPool(Wallet("0x" + "11" * 20), Contract("0x" + "33" * 20), block_time=1.0)
WELL = Facts(
    now=0,
    database=DatabaseFacts(replicated=True, clock_ahead=0, cursor=None),
    broker=BrokerFacts("u", administrator=True),
    ipfs=IpfsFacts("1"),
    watched=100.0,
)
AWAY = replace(WELL, ipfs=NoAnswer("IPFS does not answer", "Start it."))


class Scripted:
    """Answers with one of `facts` after the other, the last again and again; `gate` holds an answer back."""

    pool = POOL

    def __init__(self, *facts: Facts, gate: threading.Event | None = None) -> None:
        self.facts, self.gate, self.asked, self.closed = list(facts), gate, 0, False

    def ask(self, *, running: bool) -> Facts:
        self.asked += 1
        if self.gate is not None:
            self.gate.wait(ample(10))
        return self.facts.pop(0) if len(self.facts) > 1 else self.facts[0]

    def close(self) -> None:
        self.closed = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_while_a_server_is_silent_hold_nothing_and_get_the_same_report() -> None:
    gate = threading.Event()
    probes = Scripted(WELL, gate=gate)
    monitor = Monitor(probes, lambda: None, clock=Clock())
    before = threading.active_count()
    waiting = [monitor.report() for _ in range(200)]
    assert threading.active_count() <= before + 1
    assert not any(future.done() for future in waiting)
    gate.set()
    assert len({id(future.result(ample(10))) for future in waiting}) <= 2
    monitor.close()
    assert probes.closed


def test_a_fresh_report_is_given_again_without_another_look() -> None:
    probes = Scripted(WELL)
    clock = Clock()
    monitor = Monitor(probes, lambda: None, clock=clock)
    first = monitor.report().result(ample(10))
    clock.now = 1.0
    assert monitor.report().result(ample(10)) is first
    clock.now = 3.0
    assert monitor.report().result(ample(10)) is not first
    monitor.close()


def test_a_part_that_turns_red_is_logged_once_and_once_when_it_is_well() -> None:
    monitor = Monitor(Scripted(AWAY, AWAY, AWAY, WELL, AWAY), lambda: None, clock=(clock := Clock()))
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            monitor.report().result(ample(10))
            clock.now += 3.0
        # The line of the last report comes after it was handed out.
        monitor.close()
    told = [(line["action"], line["part"]) for line in lines]
    assert told == [("health_red", "ipfs"), ("health_well", "ipfs"), ("health_red", "ipfs")]


def test_a_hold_is_logged_once_in_and_once_out_and_told_while_it_lasts() -> None:
    told: list[str | None] = []
    monitor = Monitor(Scripted(AWAY, AWAY, AWAY, AWAY, WELL, WELL), lambda: None, told.append, clock=(clock := Clock()))
    holding = []
    with structlog.testing.capture_logs() as lines:
        for _ in range(6):
            holding.append(monitor.look().hold is not None)
            clock.now += HOLD_SECONDS / 2
    assert holding == [False, False, True, True, False, False]
    assert told == ["ipfs: IPFS does not answer"] * 2 + [None]
    said = [line["action"] for line in lines if line["action"].startswith("pool_")]
    assert said == ["pool_holds", "pool_goes_on"]


def test_a_hold_goes_on_without_a_gap_when_another_part_takes_over() -> None:
    told: list[str | None] = []
    other = replace(WELL, node=NoAnswer("no node answers", "Start one."))
    monitor = Monitor(Scripted(AWAY, AWAY, other, WELL), lambda: None, told.append, clock=(clock := Clock()))
    holds = []
    for _ in range(4):
        holds.append(monitor.look().hold)
        clock.now += HOLD_SECONDS
    assert [hold and hold.why.partition(":")[0] for hold in holds] == [None, "ipfs", "chain", None]
    assert told[-1] is None


def test_a_restart_of_a_server_holds_nothing() -> None:
    told: list[str | None] = []
    monitor = Monitor(Scripted(AWAY, WELL, AWAY, WELL), lambda: None, told.append, clock=(clock := Clock()))
    for _ in range(4):
        assert monitor.look().hold is None
        clock.now += HOLD_SECONDS - 1
    assert told == []


def test_a_look_that_fails_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    probes = Scripted(WELL)
    monitor = Monitor(probes, lambda: None, clock=Clock())
    real, fails = probes.ask, [True]

    def ask(*, running: bool) -> Facts:
        if fails.pop() if fails else False:
            raise RuntimeError
        return real(running=running)

    monkeypatch.setattr(probes, "ask", ask)
    lost = monitor.report()
    monitor._thread.join(ample(10))  # type: ignore[union-attr]
    assert monitor.report().result(ample(10)).ok
    assert lost.result(ample(10)).ok
    monitor.close()


def test_a_look_that_outlasts_the_end_of_the_process_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    asked, ended = threading.Event(), threading.Event()

    def ask(*, running: bool) -> Facts:
        asked.set()
        ended.wait(ample(10))
        raise RuntimeError("cannot schedule new futures after shutdown")

    probes = Scripted(WELL)
    monkeypatch.setattr(probes, "ask", ask)
    monkeypatch.setattr("pipeline.api.monitor.FRESH_SECONDS", 0.0)
    monitor = Monitor(probes, lambda: None, clock=Clock())
    monitor.start()
    asked.wait(ample(10))
    monitor.close()
    ended.set()
    monitor._thread.join(ample(10))  # type: ignore[union-attr]
    assert failures == []
