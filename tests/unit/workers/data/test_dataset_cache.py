"""Datasets kept for later tasks: shared, never removed in use, and bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


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
