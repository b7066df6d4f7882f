"""Files that apps leave as root, under a worker that is not."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import BadSetting, StorageUnavailable
from tests.unit.workers.test_upkeep import World
from workers import upkeep_process
from workers.data.layout import Layout, TaskFolders, discard
from workers.sandbox.container import Engine
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


def test_root_and_the_user_of_a_rootless_engine_may_work() -> None:
    EngineWithOptions().require_reach(0)
    EngineWithOptions("name=seccomp,profile=builtin", "name=rootless").require_reach(1000)


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting is refused, as for files of another user."""

    def keep(folder: Path) -> None:
        raise PermissionError(folder)

    def refuse(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1, b"", b"rm: Permission denied")

    monkeypatch.setattr("workers.data.layout.shutil.rmtree", keep)
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


@pytest.mark.usefixtures("forbidden")
def test_the_keeper_goes_on_past_files_that_it_cannot_delete(tmp_path: Path) -> None:
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
        upkeep_process._or_stop(stop, broken)
    assert stop.is_set()
