"""Files that apps leave as root, under a worker that is not."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import BadSetting, StorageUnavailable
from tests.unit.workers.upkeep_world import World
from workers.care import upkeep_process
from workers.data.layout import SHALLOW, Layout, TaskFolders, discard
from workers.sandbox.engine.container import Engine
from workers.task.journal import Journal
from workers.task.replicate import ReplicateStage


class EngineWithOptions(Engine):
    """An engine that says this of itself."""

    def __init__(self, *options: str) -> None:
        super().__init__("unix:///nowhere")
        self._options = options

    def info(self) -> dict[str, Any]:
        return {"SecurityOptions": list(self._options)}


def test_a_user_that_cannot_delete_what_apps_leave_gets_an_error_at_start() -> None:
    with pytest.raises(BadSetting, match="user 1000"):
        EngineWithOptions("name=seccomp,profile=builtin").require_reach(1000)


def test_the_user_of_a_rootless_engine_gets_one_too_since_apps_have_other_users_there() -> None:
    """What an app of an image with a user of its own leaves could neither be read nor ever be deleted."""
    with pytest.raises(BadSetting, match="users of its own, since it is rootless"):
        EngineWithOptions("name=seccomp,profile=builtin", "name=rootless").require_reach(1000)


def test_root_may_work() -> None:
    EngineWithOptions().require_reach(0)
    EngineWithOptions("name=seccomp,profile=builtin", "name=rootless").require_reach(0)


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting is refused, as for files of another user."""

    def keep(folder: str, *_: object) -> None:
        raise PermissionError(folder)

    def refuse(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1, b"", b"rm: Permission denied")

    monkeypatch.setattr("workers.data.layout._delete_shallow", keep)
    monkeypatch.setattr("workers.data.layout.subprocess.run", refuse)


@pytest.mark.usefixtures("forbidden")
def test_what_cannot_be_deleted_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="Permission denied"):
        discard(tmp_path)


def test_what_a_task_worked_with_is_out_of_the_way_of_a_later_attempt_and_its_result_stays(tmp_path: Path) -> None:
    folders = TaskFolders(tmp_path / "task")
    assert folders.move_away() is None
    for attempt in range(2):
        folders.make()
        (folders.outputs / "r").write_text("x")
        (folders.clear_errors() / "error.txt").write_text("x")
        folders.zip.write_bytes(b"zip")
        aside = folders.move_away()
        assert aside is not None
        assert {path.name for path in aside.iterdir()} == {"in", "out", "error"}
        assert {path.name for path in folders.root.iterdir()} - {"result.zip"} == {aside.name}, attempt
        discard(aside)
    assert [path.name for path in folders.root.iterdir()] == ["result.zip"]


def test_folders_thousands_deep_and_closed_to_their_owner_are_deleted(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    folder = os.open(top, os.O_RDONLY)
    for _ in range(10_000):
        os.mkdir("d", dir_fd=folder)
        folder, above = os.open("d", os.O_RDONLY, dir_fd=folder), folder
        os.close(above)
    os.fchmod(folder, 0)
    os.close(folder)
    discard(top)
    assert not top.exists()


def test_folders_nested_deep_take_a_few_of_the_process_open_files_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "top"
    folder.joinpath(*"d" * 100).mkdir(parents=True)
    held: list[int] = []
    really_open = os.open

    def now_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def counted(*args: Any, **more: Any) -> int:
        opened = really_open(*args, **more)
        held.append(now_open())
        return opened

    before = now_open()
    monkeypatch.setattr(os, "open", counted)
    discard(folder)
    assert not folder.exists()
    assert max(held) - before <= 2 * (SHALLOW + 1)


@pytest.mark.parametrize("swapped", ["link", "pipe"])
def test_an_app_that_swaps_a_folder_while_it_is_deleted_neither_stops_it_nor_has_other_files_deleted(
    swapped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, folder = tmp_path / "others", tmp_path / "out"
    others.mkdir()
    (others / "kept").touch()
    (folder / "sub").mkdir(parents=True)
    really_open = os.open

    def swap_first(path: str, *args: Any, **more: Any) -> int:
        if path == "sub" and (folder / path).is_dir():
            (folder / path).rmdir()
            if swapped == "link":
                (folder / path).symlink_to(others)
            else:
                os.mkfifo(folder / path)
        return really_open(path, *args, **more)

    monkeypatch.setattr(os, "open", swap_first)
    discard(folder)
    assert not folder.exists()
    assert (others / "kept").exists()


@pytest.mark.usefixtures("forbidden")
def test_the_upkeep_goes_on_past_files_that_it_cannot_delete(tmp_path: Path) -> None:
    folders = Layout(tmp_path / "worker")
    folders.make()
    journal = Journal(folders.journal)
    world = World(folders, journal)
    over, stray = world.put(ReplicateStage.REVEALED, number=1), folders.root / "tasks" / "stray"
    stray.mkdir()
    world.upkeep.delete_leftovers()
    assert world.pong is not None
    world.pong.forget.append(over)
    world.upkeep.run_once()
    assert journal.find(over) is None
    journal.close()


def test_an_error_in_a_thread_of_the_upkeep_ends_the_process() -> None:
    def broken() -> None:
        raise RuntimeError

    stop = threading.Event()
    with pytest.raises(RuntimeError):
        upkeep_process._or_end(stop.set, broken)
    assert stop.is_set()
