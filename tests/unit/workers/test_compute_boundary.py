"""Nothing leaves a computation without a report, whatever breaks below it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.errorresult import MACHINE_FAILED
from protocol.errors import EngineUnavailable, StorageUnavailable
from protocol.wire import Report, Step
from tests.unit.workers.assignments import SCHEDULER_KEY, WORKER_KEY, assignment, task_id
from workers.compute import compute
from workers.journal import Journal
from workers.layout import Layout
from workers.replicate import Stage

BROKEN = [
    OSError(28, "No space left on device"),
    UnicodeError("label empty or too long"),
    subprocess.CalledProcessError(1, ["rm"]),
    StorageUnavailable(what="a folder", why="not ours"),
    EngineUnavailable(what="docker", why="gone"),
]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    layout = Layout(tmp_path / "worker")
    layout.make()
    journal = Journal(layout.journal)
    sent: list[Report] = []
    machine = SimpleNamespace(
        wallet=WORKER_KEY.wallet, pool=SimpleNamespace(scheduler=SCHEDULER_KEY.wallet), downloads=None
    )
    yield SimpleNamespace(
        layout=layout,
        journal=journal,
        now=time.time,
        machine=machine,
        sent=sent,
        reports=SimpleNamespace(send=lambda _, report: sent.append(report)),
    )
    journal.close()


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_what_breaks_on_this_machine_is_declined_and_reported(
    bench: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("workers.inputs.fetch", broken)
    assert not compute(bench, assignment(1))
    found = bench.journal.find(task_id(1))
    assert found.stage is Stage.FAILED
    assert [report.step for report in bench.sent] == [Step.STARTED, Step.FAILED]
    assert bench.sent[-1].cause == MACHINE_FAILED
