"""Apps that fill the disk."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from protocol.errors import TaskDeclined, TaskFailure
from protocol.results.error_result import Failure
from tests.unit.workers.assignments import task_id
from workers.sandbox.disk import WORKING_PATH, DiskWatch, exceeds, require_free_space

#: Seconds no wait of these tests should take.
WAIT_SECONDS = 100.0


def test_bytes_count_as_the_disk_has_them_and_links_are_not_followed(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    (big / "file").write_bytes(b"x" * 1_000_000)
    out = tmp_path / "out"
    (out / "folder").mkdir(parents=True)
    (out / "link").symlink_to(big)
    with (out / "hole").open("wb") as file:
        file.truncate(2**40)
    assert not exceeds(out, 500_000)
    (out / "folder" / "file").write_bytes(b"x" * 600_000)
    assert exceeds(out, 500_000)


def test_entries_and_lengths_of_paths_have_an_end(tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / f"{number}").touch()
    assert exceeds(tmp_path, 2**40, max_entries=10)
    assert not exceeds(tmp_path, 2**40, max_entries=11)
    deep = tmp_path
    while len(str(deep)) - len(str(tmp_path)) <= WORKING_PATH:
        deep = deep / ("a" * 200)
        deep.mkdir()
    assert exceeds(tmp_path, 2**40)


def test_an_app_over_its_quota_is_killed_and_the_task_fails(tmp_path: Path) -> None:
    killed = threading.Event()
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    with DiskWatch(task_id(1), tmp_path, 1000, killed.set, every=0.01) as watch:
        assert killed.wait(WAIT_SECONDS)
    with pytest.raises(TaskFailure) as caught:
        watch.raise_if_over()
    assert caught.value.cause == Failure.OUTPUT_ZIP
    assert not isinstance(caught.value, TaskDeclined)


def test_a_disk_that_gets_full_is_this_machines_fault(tmp_path: Path) -> None:
    killed = threading.Event()
    with DiskWatch(task_id(1), tmp_path, 2**40, killed.set, floor=2**80, every=0.01) as watch:
        assert killed.wait(WAIT_SECONDS)
    with pytest.raises(TaskDeclined):
        watch.raise_if_over()


def test_no_work_begins_on_a_full_disk(tmp_path: Path) -> None:
    require_free_space(task_id(1), tmp_path, floor=1)
    with pytest.raises(TaskDeclined, match="free"):
        require_free_space(task_id(1), tmp_path, floor=2**80)


def test_an_app_within_its_quota_is_left_alone(tmp_path: Path) -> None:
    with DiskWatch(task_id(1), tmp_path, 2**40, lambda: pytest.fail("killed"), floor=1, every=0.001) as watch:
        pass
    watch.raise_if_over()
