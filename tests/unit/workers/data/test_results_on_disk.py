"""A result is on disk before the journal says so, since a vote for it follows; and half of one leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest

from tests.unit.workers.assignments import task_id
from tests.unit.workers.enclave.programs import model
from tests.written_order import is_durable, recorded
from workers.data.layout import Layout
from workers.data.result_zip import ResultZip
from workers.enclave.door import Door


def test_a_result_and_its_name_are_on_disk_when_it_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = recorded(monkeypatch)
    with ResultZip(tmp_path / "result.zip") as target, target.file("answer", 2) as write:
        write(b"42")
    assert is_durable(acts, "result.zip.part", "result.zip", tmp_path.name)


def test_a_result_that_a_program_brings_is_on_disk_when_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    layout.make()
    folders = layout.task(task_id(1))
    folders.make()
    work: Any = SimpleNamespace(folders=folders)
    door = Door(work, most_bytes=1000)
    acts = recorded(monkeypatch)
    door.take_zip(door.token, model(b"PK"))
    assert is_durable(acts, "result.zip.part", "result.zip", folders.root.name)


def test_the_folder_of_a_new_task_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    layout.make()
    acts = recorded(monkeypatch)
    layout.task(task_id(1)).make()
    assert acts == [("sync", "tasks")]
    layout.task(task_id(1)).make()
    assert acts == [("sync", "tasks")]


def test_a_disk_that_is_full_at_a_zips_last_bytes_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = ZipFile.close

    def full(packed: ZipFile) -> None:
        monkeypatch.setattr(ZipFile, "close", close)
        close(packed)
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space"), ResultZip(tmp_path / "result.zip") as target:
        monkeypatch.setattr(ZipFile, "close", full)
        with target.file("answer", 2) as write:
            write(b"42")
    assert list(tmp_path.iterdir()) == []
