"""Datasets kept for later tasks: shared, never removed in use, and bounded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.written_order import is_durable, recorded
from workers.data import verified
from workers.data.dataset_cache import CACHE_SECONDS, STALE_SECONDS, provide, tidy, unused

NOW = 2_000_000_000.0
PLENTY = 2**40


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def keep(cache: Path, name: str, *, size: int = 10, age: float = 0.0, used: bool = False) -> Path:
    path = cache / name
    path.write_bytes(b"x" * size)
    if used:
        os.link(path, cache.parent / f"{name}-in-use")
    os.utime(path, (NOW - age, NOW - age))
    return path


WHOLE = b"the whole dataset"
CHECKSUM = "0x" + hashlib.sha256(WHOLE).hexdigest()


@pytest.fixture
def switched_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the machine's starts so far: the last one counts."""
    boots = ["first"]
    monkeypatch.setattr(verified, "this_boot", lambda: boots[-1])
    return boots


def provided(cache: Path, target: str, mark: str = "task") -> tuple[bytes, int]:
    """What a task gets as the dataset, and how often it was fetched for that."""
    fetched = []

    def fetch(path: Path) -> None:
        fetched.append(path)
        path.write_bytes(WHOLE)

    provide(cache / CHECKSUM, cache.parent / target, fetch, mark)
    return (cache.parent / target).read_bytes(), len(fetched)


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if not path.name.endswith(".checked")}


def test_a_dataset_is_fetched_once_and_shared(cache: Path) -> None:
    fetched = []

    def fetch(path: Path) -> None:
        fetched.append(path.name)
        path.write_text("data")

    for number in (1, 2):
        provide(cache / "aa", cache.parent / f"task-{number}", fetch, f"mark-{number}")
        assert (cache.parent / f"task-{number}").read_text() == "data"
    assert fetched == ["aa.mark-1"]
    assert names(cache) == {"aa"}


def test_a_dataset_that_is_removed_just_before_it_is_used_is_fetched_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(cache, "aa")
    link = os.link

    def removed_before(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        source.unlink()
        link(source, target)

    monkeypatch.setattr(os, "link", removed_before)
    provide(cache / "aa", cache.parent / "task", lambda path: path.write_text("fetched again"), "mark")
    assert (cache.parent / "task").read_text() == "fetched again"


@pytest.mark.parametrize("left", [WHOLE[:5], b"", bytes(len(WHOLE))], ids=["cut short", "empty", "zeros"])
def test_a_dataset_that_a_loss_of_power_has_spoilt_is_fetched_anew(
    cache: Path, switched_on: list[str], left: bytes
) -> None:
    assert provided(cache, "before") == (WHOLE, 1)
    (cache / CHECKSUM).write_bytes(left)
    switched_on.append("second")
    assert provided(cache, "after") == (WHOLE, 1)
    assert provided(cache, "later") == (WHOLE, 0)


def test_a_dataset_that_a_loss_of_power_has_spoilt_in_a_tasks_own_folder_is_fetched_anew(
    cache: Path, switched_on: list[str]
) -> None:
    assert provided(cache, "task-1") == (WHOLE, 1)
    (cache.parent / "task-1").write_bytes(WHOLE[:5])
    switched_on.append("second")
    assert provided(cache, "task-1") == (WHOLE, 1)


def test_a_spoilt_file_of_a_task_alone_costs_the_cache_nothing(cache: Path, switched_on: list[str]) -> None:
    assert provided(cache, "task-1") == (WHOLE, 1)
    # As after two tasks that fetched it at once: only one's file is the cached one.
    (cache.parent / "task-2").write_bytes(WHOLE[:5])
    assert provided(cache, "task-2") == (WHOLE, 0)


def test_a_dataset_of_before_the_machines_start_is_read_once_and_then_believed(
    cache: Path, switched_on: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert provided(cache, "before") == (WHOLE, 1)
    switched_on.append("second")
    read, whole = list[str](), verified.sha256_of

    def noted(path: Path, meanwhile: Callable[[], object]) -> str:
        read.append(path.name)
        return whole(path, meanwhile)

    monkeypatch.setattr(verified, "sha256_of", noted)
    assert [provided(cache, name) for name in ("before", "after", "later")] == [(WHOLE, 0)] * 3
    assert read == ["before"]


def test_a_machine_that_cannot_tell_its_starts_apart_reads_each_dataset(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "this_boot", lambda: None)
    assert provided(cache, "task-1") == (WHOLE, 1)
    (cache / CHECKSUM).write_bytes(WHOLE[:5])
    assert provided(cache, "task-2") == (WHOLE, 1)


def test_a_dataset_is_on_disk_before_the_cache_has_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = recorded(monkeypatch)
    provided(cache, "task-1", mark="mark")
    assert is_durable(acts, f"{CHECKSUM}.mark", CHECKSUM, cache.name)


def test_the_note_of_a_dataset_goes_with_it(cache: Path) -> None:
    provided(cache, "task-1")
    assert len(list(cache.iterdir())) == 2
    (cache.parent / "task-1").unlink()
    assert tidy(cache, 0, NOW) == [CHECKSUM]
    assert list(cache.iterdir()) == []


def test_what_was_not_used_for_a_day_goes_unless_a_task_has_it(cache: Path) -> None:
    keep(cache, "old", age=CACHE_SECONDS + 1)
    keep(cache, "used", age=CACHE_SECONDS + 1, used=True)
    keep(cache, "new", age=CACHE_SECONDS - 1)
    assert tidy(cache, PLENTY, NOW) == ["old"]
    assert names(cache) == {"used", "new"}


def test_beyond_the_budget_the_least_recently_used_go_and_what_is_in_use_counts(cache: Path) -> None:
    keep(cache, "used", size=50, age=300, used=True)
    for number in range(3):
        keep(cache, f"n{number}", size=20, age=200 - number)
    assert tidy(cache, 90, NOW) == ["n0"]
    assert tidy(cache, 60, NOW) == ["n1", "n2"]
    assert tidy(cache, 10, NOW) == []
    assert names(cache) == {"used"}


def test_what_is_being_fetched_stays_and_what_was_left_half_fetched_goes(cache: Path) -> None:
    keep(cache, "aa.task-1", age=STALE_SECONDS - 1)
    keep(cache, "bb.task-2", age=STALE_SECONDS + 1)
    assert [path.name for path, _ in unused(cache, NOW)] == ["bb.task-2"]
    assert tidy(cache, PLENTY, NOW) == ["bb.task-2"]
    assert tidy(cache, 1, NOW) == []
    assert names(cache) == {"aa.task-1"}


def test_a_machine_without_a_cache_has_nothing_unused(tmp_path: Path) -> None:
    assert unused(tmp_path / "none", NOW) == []
