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


#: Counts on a disk that is full, in this process and in one that it forks, as a scheduler's processes are.
_ON_A_FULL_DISK = """
import os, sys
from pathlib import Path
from config.metrics_folder import share

folder, when = Path(sys.argv[1]), sys.argv[2]

def fill():
    with (folder / "full").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

share(folder)
if when == "at the start":
    fill()
from config import metrics
metrics.DEALS.inc()
if when == "later":
    fill()
metrics.RPC_REQUESTS.labels("eth_call", "node:1", "ok").inc()
child = os.fork()
if not child:
    metrics.DEALS.inc(2)
    os._exit(0 if metrics.DEALS._value.get() == 2 else 3)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert metrics.DEALS._value.get() == 1
(folder / "full").unlink()
print("counted")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("when", ["at the start", "later"])
def test_a_full_disk_ends_no_process_that_counts(tmp_path: Path, when: str) -> None:
    mounted = f'mount -t tmpfs -o size=8m none {tmp_path} && exec {sys.executable} - {tmp_path} "$0"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, when],
        input=_ON_A_FULL_DISK,
        env={name: value for name, value in os.environ.items() if name != metrics_folder.VARIABLE},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["counted"]), done.stderr
    assert "metrics_in_memory" in done.stdout + done.stderr
