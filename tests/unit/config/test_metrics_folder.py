"""What one process of the scheduler counts, the others must see: otherwise `/metrics` is the API's alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config import metrics_folder

ROOT = Path(__file__).parents[3]


def test_the_scheduler_counts_in_files_of_its_home(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != metrics_folder.VARIABLE}
    # It ends at once: no chain is named. What it counts with is loaded by then.
    ended = subprocess.run(
        [sys.executable, "-m", "ops.cli", "scheduler", "run"],
        env=environment | {"SLUICE_HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert ended.returncode != 0
    assert list((tmp_path / "metrics").glob("counter_*.db"))


def test_files_of_processes_that_are_gone_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first, so that it is put back to what it was after the test.
    monkeypatch.setenv(metrics_folder.VARIABLE, "")
    monkeypatch.delenv(metrics_folder.VARIABLE)
    gone, own = tmp_path / "counter_999999999.db", tmp_path / f"counter_{os.getpid()}.db"
    gone.touch()
    own.touch()

    metrics_folder.share(tmp_path)

    assert list(tmp_path.iterdir()) == [own]
    assert os.environ[metrics_folder.VARIABLE] == str(tmp_path)


def test_a_folder_that_the_environment_names_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(metrics_folder.VARIABLE, str(tmp_path / "named"))

    metrics_folder.share(tmp_path / "other")

    assert [path.name for path in tmp_path.iterdir()] == ["named"]
