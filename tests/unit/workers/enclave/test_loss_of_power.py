"""What pre-compute has opened is believed until the machine is switched off: then a file may have been cut short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.sms.world import DATASET, TASK
from tests.unit.workers.enclave.machine import Bench
from workers.data import verified
from workers.data.layout import Layout
from workers.sandbox.engine.container_state import ContainerExit
from workers.task.outcome import app_end
from workers.task.replicate import ReplicateStage


class PowerLoss(BaseException):
    """Nothing runs after it."""


def test_inputs_that_a_loss_of_power_has_cut_short_are_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    boot = ["first"]
    monkeypatch.setattr(verified, "this_boot", lambda: boot[-1])
    inputs = bench.layout.task(TASK).inputs

    def killed(*_: Any, **__: Any) -> None:
        raise PowerLoss

    def attempt() -> None:
        with monkeypatch.context() as patch, pytest.raises(PowerLoss):
            patch.setattr("workers.sandbox.run_app.run_app", killed)
            bench.replicate()

    attempt()
    marked = (inputs / DATASET).stat().st_mtime_ns
    attempt()
    assert (inputs / DATASET).stat().st_mtime_ns == marked, "an app may be reading it"
    (inputs / DATASET).write_bytes(b"cut")
    boot.append("second")
    # The app asserts that it finds what was sealed.
    assert bench.replicate().stage is ReplicateStage.COMPUTED
    bench.journal.close()


def test_how_an_app_ended_before_a_loss_of_power_does_not_count_since_what_it_wrote_may_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = ["first"]
    monkeypatch.setattr(verified, "this_boot", lambda: boot[-1])
    folders = Layout(tmp_path).task(TASK)
    folders.make()
    app_end.keep(folders, ContainerExit(0, out_of_memory=False, timed_out=False, stdout=b"done"))
    found = app_end.kept(folders)
    assert found is not None
    assert found.stdout == b"done"
    boot.append("second")
    assert app_end.kept(folders) is None
