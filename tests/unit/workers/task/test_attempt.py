"""Parts of a machine's upkeep that fail: what is logged how often, and that the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from protocol.errors import PoolUnavailable, TaskDeclined
from tests.unit.workers.assignments import SCHEDULER_KEY, WORKER_KEY, assignment, task_id
from workers.attempt import REPEAT_SECONDS, Attempts, LogThrottle
from workers.data.layout import Layout
from workers.fitness.checkup import CHECK_SECONDS, Checkup
from workers.fitness.doctor import NETWORK, NOT_ASKED
from workers.fitness.rules import CheckResult
from workers.pool.reports import TRIES, Reports
from workers.task import admission
from workers.task.replicate import Replicate, ReplicateStage


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_message_is_due_when_new_when_changed_and_then_rarely() -> None:
    reminder = LogThrottle(every=100)
    assert [reminder.should_log("disk", "full", now) for now in (0, 1, 99, 100, 101)] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert reminder.should_log("disk", "fuller", 102)
    assert reminder.forget("disk")
    assert not reminder.forget("disk")
    assert reminder.should_log("disk", "full", 103)


@pytest.mark.parametrize("error", [ValueError("a"), KeyError("b"), OSError("c"), AssertionError()])
def test_a_part_that_fails_is_logged_once_an_hour_and_its_recovery_once(error: Exception) -> None:
    clock = Clock()
    attempts = Attempts(clock)

    def fail() -> None:
        raise error

    with capture_logs() as logs:
        for clock.now in (0.0, 10.0, 20.0, REPEAT_SECONDS):
            attempts.run("part", fail)
        attempts.run("part", lambda: None)
        attempts.run("part", lambda: None)
    assert [entry["action"] for entry in logs] == ["part_failed", "part_failed", "part_recovered"]


def test_a_report_that_breaks_its_thread_does_not_keep_the_next_one_from_being_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However slow this machine is.
    monkeypatch.setattr("workers.pool.reports.FLUSH_SECONDS", 60.0)

    class Api:
        def __init__(self) -> None:
            self.taken: list[str] = []

        def report(self, task_id: str, report: object) -> None:
            if task_id == "bad":
                raise RuntimeError(task_id)
            self.taken.append(task_id)

    api: Any = Api()
    reports = Reports(api)
    for task in ("bad", "good"):
        reports.send(task, SimpleNamespace(step="computed"))  # type: ignore[arg-type]
    reports.close()
    assert api.taken == ["good"]


def test_what_is_wrong_with_a_running_machine_is_logged_once_an_hour_and_when_it_is_repaired(tmp_path: Path) -> None:
    clock, state = Clock(), {"ok": False}
    thorough: list[bool] = []

    def examine(_: object, now: float, deep: bool) -> Iterator[CheckResult]:
        thorough.append(deep)
        yield CheckResult("gas", state["ok"], f"{now} wei", {"has_wei": int(now)})

    checkup = Checkup(cast("Any", SimpleNamespace(layout=Layout(tmp_path))), clock, examine, clock)
    with capture_logs() as logs:
        for clock.now in (0.0, 10.0, CHECK_SECONDS, REPEAT_SECONDS):
            checkup.run_if_due()
        state["ok"] = True
        clock.now += CHECK_SECONDS
        checkup.run_if_due()
    assert [(entry["action"], entry["part"]) for entry in logs] == [
        ("not_fit", "gas"),
        ("not_fit", "gas"),
        ("fit_again", "gas"),
    ]
    assert logs[0]["has_wei"] == 0
    clock.now += CHECK_SECONDS
    checkup.run_if_due()
    assert thorough == [True, True, True, True, False], "all is looked at while something is wrong, and rarely after"


def test_a_part_that_could_not_be_asked_is_logged_as_neither_wrong_nor_repaired(tmp_path: Path) -> None:
    clock, says = Clock(), {"gas": "0 wei"}

    def examine(_: object, now: float, deep: bool) -> Iterator[CheckResult]:
        yield CheckResult("chain", not says["gas"].startswith(NOT_ASKED), "the node")
        yield CheckResult("gas", False, says["gas"])

    checkup = Checkup(cast("Any", SimpleNamespace(layout=Layout(tmp_path))), clock, examine, clock)
    with capture_logs() as logs:
        for clock.now, says["gas"] in (
            (0.0, f"{NOT_ASKED}that needs the chain"),
            (CHECK_SECONDS, "0 wei"),
            (2 * CHECK_SECONDS, f"{NOT_ASKED}that needs the chain"),
            (3 * CHECK_SECONDS, "0 wei"),
        ):
            checkup.run_if_due()
    # That the gas is short was logged once: nothing has shown since that it was enough.
    assert [(entry["action"], entry["part"]) for entry in logs] == [
        ("not_fit", "chain"),
        ("fit_again", "chain"),
        ("not_fit", "gas"),
        ("not_fit", "chain"),
        ("fit_again", "chain"),
    ]


def test_a_packet_filter_that_cannot_be_set_again_bars_new_apps_until_it_is_back(tmp_path: Path) -> None:
    clock, state = Clock(), {"ok": False}
    machine: Any = SimpleNamespace(layout=Layout(tmp_path))

    def examine(*_: object) -> Iterator[CheckResult]:
        yield CheckResult(NETWORK, state["ok"], "iptables: Permission denied")

    checkup = Checkup(machine, clock, examine, clock)
    checkup.run_if_due()
    context: Any = SimpleNamespace(
        machine=machine, layout=machine.layout, now=clock, ledger=SimpleNamespace(why_not=lambda _: None)
    )
    machine.wallet, machine.pool = WORKER_KEY.wallet, SimpleNamespace(scheduler=SCHEDULER_KEY.wallet)
    own = Replicate(task_id(1), assignment(1), ReplicateStage.TAKEN)
    with pytest.raises(TaskDeclined, match="kept off this machine's network now: iptables: Permission denied"):
        admission.require(context, replace(own, stage=ReplicateStage.TAKEN))
    # An app that runs was begun behind the filter.
    admission.require(context, replace(own, stage=ReplicateStage.RUNNING))
    state["ok"] = True
    clock.now += CHECK_SECONDS
    checkup.run_if_due()
    admission.require(context, replace(own, stage=ReplicateStage.TAKEN))


def test_a_clock_that_is_set_back_keeps_nobody_from_checking_the_packet_filter() -> None:
    wall, steady, seen = Clock(), Clock(), list[float]()

    def examine(_: object, now: float, deep: bool) -> Iterator[CheckResult]:
        seen.append(now)
        yield CheckResult(NETWORK, True, "fine")

    machine: Any = SimpleNamespace(layout=SimpleNamespace(unconfined=SimpleNamespace(unlink=lambda **_: None)))
    checkup = Checkup(machine, wall, examine, steady)
    wall.now = 1_000_000.0
    checkup.run_if_due()
    wall.now, steady.now = 10.0, CHECK_SECONDS
    checkup.run_if_due()
    assert seen == [1_000_000.0, 10.0]


def test_reports_wait_before_each_try_while_the_pool_is_away_and_longer_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.pool.reports.FLUSH_SECONDS", 60.0)
    waited: list[float] = []
    # Of the library that tries again, not of the process.
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waited.append))

    class Away:
        tries = 0

        def report(self, *_: object) -> None:
            self.tries += 1
            raise PoolUnavailable(what="the pool", why="away")

    away = Away()
    reports = Reports(away)
    reports.send(task_id(1), SimpleNamespace(step="computed"))  # type: ignore[arg-type]
    reports.close()
    assert away.tries == TRIES == len(waited) + 1
    # Up to a second of jitter each.
    assert all(later > earlier - 1 for earlier, later in pairwise(waited))
    assert min(waited) >= 0.2
    assert max(waited) > 2.0
