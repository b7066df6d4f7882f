"""Files that a killed program never leaves half-written, and the repository of IPFS, which is made the same way."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from config.whole_files import create_whole, move_whole, new_file, replace_whole, write_whole
from ops.stack.servers import ipfs
from protocol.errors import NotReady, Unavailable
from tests.written_order import is_durable, recorded


def test_a_file_has_its_new_content_and_the_permissions_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "session"
    path.write_text("old")
    write_whole(path, "new", mode=0o600)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
#: Of the user whose scheduler or machine it is: any but root's.
USER, GROUP = 12345, 23456


def dress(path: Path) -> tuple[int, int, int]:
    """Owner, group and permissions of a file."""
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@as_root
def test_what_root_writes_belongs_to_whose_file_or_folder_it_is(tmp_path: Path) -> None:
    os.chown(tmp_path, USER, GROUP)
    for name, write in {"a": write_whole, "b": create_whole, "c": replace_whole}.items():
        write(tmp_path / name, "new", mode=0o600)
        assert dress(tmp_path / name) == (USER, GROUP, 0o600), write
    # Another user's than the folder's.
    os.chown(tmp_path / "a", USER + 1, GROUP + 1)
    write_whole(tmp_path / "a", "newer", mode=0o644)
    assert dress(tmp_path / "a") == (USER + 1, GROUP + 1, 0o644)


@as_root
def test_a_file_that_is_replaced_keeps_owner_group_and_permissions(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("old")
    path.chmod(0o444)
    os.chown(path, USER, GROUP)
    replace_whole(path, "new", most=0o640)
    assert (path.read_text(), dress(path)) == ("new", (USER, GROUP, 0o440))
    replace_whole(path, "newer")
    assert (path.read_text(), dress(path)) == ("newer", (USER, GROUP, 0o400))


def test_a_file_that_cannot_be_given_to_its_owner_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.pem"
    path.write_text("old")

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    found = os.stat_result((0o100400, 1, 1, 1, USER, GROUP, 3, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda *_, **__: found)
    with pytest.raises(PermissionError):
        replace_whole(path, "new")
    monkeypatch.undo()
    assert ([one.name for one in tmp_path.iterdir()], path.read_text()) == (["key.pem"], "old")


def test_a_write_that_fails_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    # A folder in the file's place: all is written by then, and only the last step fails.
    path = tmp_path / "config"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_never_take_each_others_half_file(tmp_path: Path) -> None:
    # A writer that was killed half-way left its file; another is at work under a name of its own.
    left = tmp_path / "pins.json.part-00000000"
    left.write_text("{")
    write_whole(tmp_path / "pins.json", "{}")
    assert (tmp_path / "pins.json").read_text() == "{}"
    assert left.read_text() == "{"


def test_a_file_and_its_name_are_on_disk_when_it_is_said_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts = recorded(monkeypatch)
    write_whole(tmp_path / "a", "text")
    create_whole(tmp_path / "b", "text")
    with new_file(tmp_path / "c") as file:
        file.write(b"text")
    (tmp_path / "half").write_text("text")
    move_whole(tmp_path / "half", tmp_path / "d")
    for name, written in (("a", "a.part-"), ("b", "b.part-"), ("c", "c.part-"), ("d", "half")):
        assert is_durable(acts, written, name, tmp_path.name)


_INIT = """#!/bin/sh
printf '%s' '{"Identity": "mine"' > "$IPFS_PATH/config"
[ -e "{allowed}" ] || exit 1
printf '}' >> "$IPFS_PATH/config"
"""


def test_an_init_of_ipfs_that_was_cut_off_is_not_taken_for_a_repository(tmp_path: Path) -> None:
    allowed, program, repository = tmp_path / "allowed", tmp_path / "ipfs", tmp_path / "ipfs-home" / "data"
    program.write_text(_INIT.replace("{allowed}", str(allowed)))
    program.chmod(0o700)
    with pytest.raises(NotReady, match="ipfs init"):
        ipfs.prepare(program, repository, {}, {"Bootstrap": []}, log=tmp_path / "log")
    assert not repository.exists()
    allowed.touch()
    # What an older release's `up` left when it was killed.
    repository.mkdir()
    (repository / "keystore").mkdir()
    ipfs.prepare(program, repository, {}, {"Bootstrap": []}, log=tmp_path / "log")
    assert json.loads((repository / "config").read_text()) == {"Identity": "mine", "Bootstrap": []}
    assert [path.name for path in repository.parent.iterdir()] == ["data"]


def test_a_configuration_of_ipfs_that_cannot_be_read_is_said_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config").touch()
    with pytest.raises(Unavailable, match="sluice stack down ipfs --wipe"):
        ipfs.prepare(tmp_path / "ipfs", tmp_path / "data", {}, {}, log=tmp_path / "log")
