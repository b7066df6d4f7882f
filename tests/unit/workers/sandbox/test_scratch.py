"""Where an app writes besides its output folder, by what an engine says of its container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import BadMessage
from workers.sandbox.disk import exceeds
from workers.sandbox.engine.container import Engine
from workers.sandbox.scratch import SeenScratch, nameless, processes_beside, scratch_paths


def inspected(folder: str) -> dict[str, Any]:
    return {
        "GraphDriver": {"Data": {"UpperDir": f"{folder}/layer", "LowerDir": f"{folder}/image"}, "Name": "overlay2"},
        "Mounts": [
            {"Type": "bind", "Source": "/home/out", "Destination": "/iexec_out"},
            {"Type": "volume", "Source": f"{folder}/volume", "Destination": "/data"},
        ],
        "HostsPath": f"{folder}/hosts",
        "HostnamePath": f"{folder}/hostname",
        "ResolvConfPath": "",
        "LogPath": f"{folder}/log",
    }


class FakeEngine(Engine):
    """An engine with one container."""

    def __init__(self, host: str, folder: Path) -> None:
        super().__init__(host)
        self._folder, self.asked = folder, 0

    def info(self) -> dict[str, Any]:
        return {"DockerRootDir": str(self._folder)}

    def inspect(self, container: str) -> dict[str, Any]:
        self.asked += 1
        return inspected(str(self._folder))


def test_layer_volumes_and_the_engines_own_files_count_but_neither_binds_nor_logs() -> None:
    assert [str(path) for path in scratch_paths(inspected("/d"))] == [
        "/d/layer",
        "/d/volume",
        "/d/hosts",
        "/d/hostname",
    ]


@pytest.mark.parametrize("driver", [None, {}, {"Data": None}, {"Data": {}, "Name": "zfs"}, "overlay2"])
def test_an_engine_that_does_not_name_the_layers_folder_shows_nothing(driver: object) -> None:
    assert scratch_paths(inspected("/d") | {"GraphDriver": driver}) == ()


def test_mounts_of_another_shape_are_no_answer() -> None:
    with pytest.raises(BadMessage):
        scratch_paths(inspected("/d") | {"Mounts": ["/data"]})


def test_the_engine_is_asked_once_and_only_when_needed(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    engine = FakeEngine("unix:///nowhere", tmp_path)
    seen = SeenScratch(engine, "id")
    paths = seen.paths
    assert engine.asked == 0
    assert paths()[0] == tmp_path / "layer"
    assert paths() == paths()
    assert seen.layer() == tmp_path / "layer"
    assert engine.asked == 1


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "unix:///nowhere"])
def test_paths_of_an_engine_elsewhere_are_not_looked_at(tmp_path: Path, host: str) -> None:
    if host.startswith("tcp"):
        (tmp_path / "layer").mkdir()
    assert SeenScratch(FakeEngine(host, tmp_path), "id").paths() == ()


def test_an_open_file_counts_when_its_name_is_gone_and_only_then(tmp_path: Path) -> None:
    ours = Path("/proc") / str(os.getpid())
    assert ours in processes_beside(os.getpid())
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        path = ours / "fd" / str(file.fileno())
        assert path not in nameless([ours])
        (tmp_path / "file").unlink()
        assert path in nameless([ours])
        assert exceeds([path], 50_000, 10)
        assert not exceeds([path], 200_000, 10)


def test_the_path_of_an_open_file_counts_only_while_it_leads_to_a_file_without_a_name(tmp_path: Path) -> None:
    # The number of a file that a process has closed is given to the next one that it opens.
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "file").write_bytes(b"x" * 100_000)
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    (tmp_path / "file").unlink()
    os.write(opened, b"x" * 100_000)
    path = Path("/proc") / str(os.getpid()) / "fd" / str(opened)
    assert path in nameless([path.parent.parent])
    assert exceeds([path], 50_000, 10)
    for other in (tmp_path / "image", tmp_path / "image" / "file", Path("/dev/null")):
        another = os.open(other, os.O_RDONLY)
        os.dup2(another, opened)
        os.close(another)
        assert not exceeds([path], 0, 0), other
    os.close(opened)
    assert not exceeds([path], 0, 0)


def test_an_open_file_of_a_process_that_has_ended_meanwhile_does_not_count(tmp_path: Path) -> None:
    gone = Path("/proc") / str(2**22 + 1) / "fd" / "3"
    assert not exceeds([gone, tmp_path / "none"], 0, 0)


@pytest.mark.parametrize("error", [ProcessLookupError(), PermissionError(), FileNotFoundError(), OSError(116, "stale")])
def test_an_error_of_an_open_file_that_vanishes_under_the_look_ends_no_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    link, real = tmp_path / "3", Path.stat
    link.symlink_to(tmp_path)

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path == link and follow_symlinks:
            raise error
        return real(path, follow_symlinks=follow_symlinks)

    (tmp_path / "full").write_bytes(b"x" * 100_000)
    monkeypatch.setattr(Path, "stat", stat)
    assert exceeds([link, tmp_path / "full"], 50_000, 10)
    assert not exceeds([link], 0, 0)


def test_the_layer_of_an_engine_elsewhere_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "layer").mkdir()
    assert SeenScratch(FakeEngine("tcp://127.0.0.1:2375", tmp_path), "id").layer() is None


def test_a_process_that_has_ended_has_no_company() -> None:
    assert processes_beside(2**22 + 1) == []


def test_a_process_of_that_number_that_is_not_the_containers_is_not_looked_at(tmp_path: Path) -> None:
    class Elsewhere(FakeEngine):
        def inspect(self, container: str) -> dict[str, Any]:
            return super().inspect(container) | {"State": {"Pid": os.getpid()}}

    (tmp_path / "layer").mkdir()
    assert len(SeenScratch(Elsewhere("unix:///nowhere", tmp_path), "id-of-a-container").paths()) == 4
