"""Apps that fill the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import EngineUnavailable, NoSuchContainer, TaskDeclined, TaskFailure
from protocol.results.error_result import MACHINE_FAILED, UNCLEAR_END, Failure
from tests.unit.workers.assignments import task_id
from workers.data.layout import discard
from workers.sandbox import disk
from workers.sandbox.disk import WORKING_PATH, DiskWatch, Place, exceeds, free_share, require_free_space

#: Seconds no wait of these tests should take.
WAIT_SECONDS = 100.0
#: No limit.
MUCH = 2**60


def place(*paths: Path, most: int = MUCH, pool: int | None = None, entries: int = MUCH) -> Place:
    return Place("/iexec_out", lambda: paths, most, pool or most, entries, Failure.OUTPUT_ZIP)


def watched(folder: Path, *places: Place, kill: Callable[[], None], floor: int = 1) -> DiskWatch:
    return DiskWatch(task_id(1), places, lambda: (folder,), kill, floor=floor, every=0.01)


def verdict(folder: Path, *places: Place, floor: int = 1) -> TaskFailure:
    """Of a watch that has killed the app."""
    killed = threading.Event()
    with watched(folder, *places, kill=killed.set, floor=floor) as watch:
        assert killed.wait(WAIT_SECONDS)
    with pytest.raises(TaskFailure) as caught:
        watch.raise_if_over()
    return caught.value


def filled(folder: Path, size: int = 100_000) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "file").write_bytes(b"x" * size)
    return folder


# -- counting ---------------------------------------------------------------------------------------------------------


def test_bytes_count_as_the_disk_has_them_and_links_are_not_followed(tmp_path: Path) -> None:
    big = filled(tmp_path / "big", 1_000_000)
    out = tmp_path / "out"
    (out / "folder").mkdir(parents=True)
    (out / "link").symlink_to(big)
    with (out / "hole").open("wb") as file:
        file.truncate(2**40)
    assert not exceeds([out], 500_000, MUCH)
    (out / "folder" / "file").write_bytes(b"x" * 600_000)
    assert exceeds([out], 500_000, MUCH)


@pytest.fixture
def preallocating(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that keeps 10 MiB behind the end of each file, as XFS may."""
    entries = disk._entries

    def with_more(tops: Sequence[Path]) -> Iterator[Any]:
        for found in entries(tops):
            assert found is not None
            blocks = found.st_blocks + 10 * 2**20 // 512
            yield SimpleNamespace(
                st_dev=found.st_dev, st_ino=found.st_ino, st_mode=found.st_mode, st_size=found.st_size, st_blocks=blocks
            )

    monkeypatch.setattr(disk, "_entries", with_more)


@pytest.mark.usefixtures("preallocating")
def test_blocks_behind_a_files_end_are_no_bytes_of_the_app(tmp_path: Path) -> None:
    filled(tmp_path / "out")
    assert not exceeds([tmp_path], 1_000_000, MUCH)
    assert exceeds([tmp_path], 1_000_000, MUCH, beyond_ends=True)
    assert exceeds([tmp_path], 50_000, MUCH)


def test_entries_and_lengths_of_paths_have_an_end(tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / f"{number}").touch()
    assert exceeds([tmp_path], MUCH, 10)
    assert not exceeds([tmp_path], MUCH, 11)
    deep = tmp_path
    while len(str(deep)) - len(str(tmp_path)) <= WORKING_PATH:
        deep = deep / ("a" * 200)
        deep.mkdir()
    assert exceeds([tmp_path], MUCH, MUCH)


def test_a_path_of_few_characters_that_the_system_cannot_open_hides_nothing(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(20):
            # 63 characters of four bytes each, as an app makes them: from folder to folder.
            os.mkdir("\U0001f600" * 63, dir_fd=here)
            inner = os.open("\U0001f600" * 63, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)
    try:
        assert exceeds([tmp_path], MUCH, MUCH)
    finally:
        discard(tmp_path)


def test_several_folders_and_files_count_together_and_absent_ones_not(tmp_path: Path) -> None:
    parts = [filled(tmp_path / "layer"), filled(tmp_path / "volume"), tmp_path / "volume" / "file", tmp_path / "gone"]
    (tmp_path / "hosts").write_bytes(b"x" * 100_000)
    assert not exceeds(parts, 250_000, MUCH)
    assert exceeds([*parts, tmp_path / "hosts"], 250_000, MUCH)


def test_an_open_file_without_a_name_counts_unless_it_is_memory(tmp_path: Path) -> None:
    memory = os.memfd_create("sluice-test")
    # Named as the kernel names those; it is on a disk all the same.
    pretended = os.open(tmp_path / "memfd:sluice-test", os.O_RDWR | os.O_CREAT)
    try:
        (tmp_path / "memfd:sluice-test").unlink()
        for descriptor in (memory, pretended):
            os.write(descriptor, bytes(2**20))
            os.fsync(descriptor)
        assert not exceeds([Path(f"/proc/self/fd/{memory}")], 2**19, MUCH)
        assert exceeds([Path(f"/proc/self/fd/{pretended}")], 2**19, MUCH)
    finally:
        os.close(memory)
        os.close(pretended)


def test_a_file_of_many_names_counts_once(tmp_path: Path) -> None:
    filled(tmp_path / "out")
    for number in range(50):
        (tmp_path / "out" / f"{number}").hardlink_to(tmp_path / "out" / "file")
    assert not exceeds([tmp_path / "out"], 150_000, 10)


#: A tree as nested dicts; an int is a file of so many blocks of 4 KiB.
TREES = st.recursive(
    st.integers(0, 3), lambda child: st.dictionaries(st.sampled_from("abcdef"), child, max_size=4), max_leaves=12
)


@given(tree=st.dictionaries(st.sampled_from("abcdef"), TREES, max_size=4), most=st.integers(0, 12))
def test_any_tree_exceeds_exactly_what_is_less_than_it_holds(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object], most: int
) -> None:
    top = tmp_path_factory.mktemp("tree")
    entries = _make(top, tree)
    found = [path.lstat() for path in top.rglob("*")]
    taken = sum(min(status.st_blocks * 512, status.st_size) for status in found)
    assert exceeds([top], most * 4096, MUCH) == (taken > most * 4096)
    assert exceeds([top], MUCH, most) == (entries > most)


def _make(folder: Path, tree: dict[str, object]) -> int:
    entries = len(tree)
    for name, content in tree.items():
        if isinstance(content, dict):
            (folder / name).mkdir()
            entries += _make(folder / name, content)
        else:
            (folder / name).write_bytes(b"x" * 4096 * int(str(content)))
    return entries


# -- whose fault ------------------------------------------------------------------------------------------------------


def test_an_app_over_its_quota_is_killed_and_the_task_fails(tmp_path: Path) -> None:
    found = verdict(tmp_path, place(filled(tmp_path / "out"), most=1000))
    assert found.cause == Failure.OUTPUT_ZIP
    assert not isinstance(found, TaskDeclined)


def test_an_app_with_too_many_files_fails_the_task(tmp_path: Path) -> None:
    out = filled(tmp_path / "out")
    (out / "other").touch()
    found = verdict(tmp_path, place(out, entries=1))
    assert not isinstance(found, TaskDeclined)


def test_each_place_has_a_limit_and_a_failure_of_its_own(tmp_path: Path) -> None:
    scratch = Place("elsewhere", lambda: [filled(tmp_path / "layer")], 1000, 1000, MUCH, Failure.APP)
    found = verdict(tmp_path, place(filled(tmp_path / "out")), scratch)
    assert found.cause == Failure.APP
    assert "elsewhere" in str(found)


def test_what_only_this_machine_does_not_keep_is_declined(tmp_path: Path) -> None:
    assert isinstance(verdict(tmp_path, place(filled(tmp_path / "out"), most=1000, pool=MUCH)), TaskDeclined)


@pytest.mark.usefixtures("preallocating")
def test_an_app_over_its_quota_only_by_blocks_behind_its_files_is_ended_and_held_against_nobody(tmp_path: Path) -> None:
    out = filled(tmp_path / "out")
    for pool in (1_000_000, MUCH):
        found = verdict(tmp_path, place(out, most=1_000_000, pool=pool))
        assert isinstance(found, TaskDeclined)
        assert found.cause == UNCLEAR_END
    # What its files hold is still the app's, by the pool's quota, or this machine's limit.
    assert not isinstance(verdict(tmp_path, place(out, most=50_000)), TaskDeclined)
    assert verdict(tmp_path, place(out, most=50_000, pool=MUCH)).cause == MACHINE_FAILED


def test_what_only_the_engine_says_is_never_a_vote(tmp_path: Path) -> None:
    unseen = Place("elsewhere", tuple, 1000, 1000, MUCH, Failure.APP, engine_bytes=lambda: 2000)
    found = verdict(tmp_path, unseen)
    # Sparse files count in full there, and any app can make them.
    assert isinstance(found, TaskDeclined)
    assert found.cause == UNCLEAR_END


def test_a_disk_that_gets_full_is_this_machines_fault(tmp_path: Path) -> None:
    assert isinstance(verdict(tmp_path, place(filled(tmp_path / "out")), floor=2**80), TaskDeclined)


def test_who_fills_the_disk_beyond_his_quota_has_failed_also_where_little_was_free(tmp_path: Path) -> None:
    found = verdict(tmp_path, place(filled(tmp_path / "out"), most=1000), floor=2**80)
    assert not isinstance(found, TaskDeclined)


def test_an_app_that_hid_its_files_until_it_was_killed_is_judged_by_what_is_seen_then(tmp_path: Path) -> None:
    killed = threading.Event()
    out = filled(tmp_path / "out")

    def paths() -> Sequence[Path]:
        return (out,) if killed.is_set() else ()

    hiding = Place("/iexec_out", paths, 1000, 1000, MUCH, Failure.OUTPUT_ZIP)
    with watched(tmp_path, hiding, kill=killed.set, floor=2**80) as watch:
        assert killed.wait(WAIT_SECONDS)
    with pytest.raises(TaskFailure) as caught:
        watch.raise_if_over()
    assert not isinstance(caught.value, TaskDeclined)


def test_a_disk_that_is_full_at_the_end_of_an_app_is_this_machines_fault(tmp_path: Path) -> None:
    watch = DiskWatch(task_id(1), [], lambda: (tmp_path,), lambda: pytest.fail("killed"), floor=2**80)
    with pytest.raises(TaskDeclined, match="free"):
        watch.raise_if_over()


@pytest.mark.parametrize(
    "error", [EngineUnavailable(what="x", why="busy"), NoSuchContainer(why="gone"), OSError("stale")]
)
def test_an_error_while_looking_decides_nothing_and_the_watch_goes_on(tmp_path: Path, error: Exception) -> None:
    looks = 0

    def paths() -> Sequence[Path]:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise error
        return (tmp_path,)

    filled(tmp_path / "out")
    found = verdict(tmp_path, Place("/iexec_out", paths, 1000, 1000, MUCH, Failure.OUTPUT_ZIP))
    assert not isinstance(found, TaskDeclined)


def test_an_app_within_its_quota_is_left_alone(tmp_path: Path) -> None:
    with watched(tmp_path, place(tmp_path), kill=lambda: pytest.fail("killed")) as watch:
        pass
    watch.raise_if_over()


# -- the machine's disks ----------------------------------------------------------------------------------------------


def test_no_work_begins_on_a_full_disk(tmp_path: Path) -> None:
    require_free_space(task_id(1), tmp_path, floor=1)
    with pytest.raises(TaskDeclined, match="free"):
        require_free_space(task_id(1), tmp_path, floor=2**80)


def statvfs(monkeypatch: pytest.MonkeyPatch, *, inodes: int, free_inodes: int) -> None:
    found = SimpleNamespace(f_bavail=2**30, f_frsize=4096, f_files=inodes, f_favail=free_inodes)
    monkeypatch.setattr(os, "statvfs", lambda _: found)


def test_a_disk_without_inodes_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statvfs(monkeypatch, inodes=2**20, free_inodes=disk.LEAST_FREE_INODES - 1)
    with pytest.raises(TaskDeclined, match="65535 inodes"):
        require_free_space(task_id(1), tmp_path)


def test_a_file_system_that_makes_inodes_as_needed_has_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statvfs(monkeypatch, inodes=0, free_inodes=0)
    assert free_share(tmp_path) > 1
