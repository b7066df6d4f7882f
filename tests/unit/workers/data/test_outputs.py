"""From an output folder to a digest and a zip; the folders here are what hostile apps leave."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import TaskDeclined, TaskFailure
from protocol.ethereum.keccak import keccak
from protocol.results.computed import PATH_LEVELS
from protocol.results.error_result import Failure
from tests.unit.workers.assignments import task_id
from workers.data import outputs
from workers.data.layout import discard
from workers.data.outputs import PackedResult, ResultLimits, pack, write_into

CAPS = ResultLimits(total_bytes=1_000_000, entries=50)


def fill(folder: Path, path: str | None = "/iexec_out/result.txt", files: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "result.txt").write_bytes(b"hello")
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    if path is not None:
        (folder / "computed.json").write_text(json.dumps({"deterministic-output-path": path}))
    return folder


def packed(folder: Path, *, callback: bool = False, result_limits: ResultLimits = CAPS) -> PackedResult:
    return pack(task_id(1), folder, folder.with_suffix(".zip"), callback=callback, result_limits=result_limits)


def cause(folder: Path, *, callback: bool = False, result_limits: ResultLimits = CAPS) -> str:
    with pytest.raises(TaskFailure) as caught:
        packed(folder, callback=callback, result_limits=result_limits)
    assert not folder.with_suffix(".zip.part").exists()
    return caught.value.cause


def test_one_file_is_digested_by_its_sha256(tmp_path: Path) -> None:
    assert packed(fill(tmp_path / "out")).digest == "0x" + hashlib.sha256(b"hello").hexdigest()


def test_a_folder_is_digested_by_its_own_files_only(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", "/iexec_out/data/")
    (folder / "data" / "sub").mkdir(parents=True)
    (folder / "data" / "a.txt").write_bytes(b"A")
    (folder / "data" / "b.txt").write_bytes(b"B")
    (folder / "data" / "sub" / "c.txt").write_bytes(b"C")
    assert packed(folder).digest == "0x3e414b345ce4e8d016eff459b112b41de5bc488237863d83187f93ba096a9666"


def test_an_empty_folder_is_a_result_and_travels_in_the_zip(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", "/iexec_out/nothing")
    (folder / "nothing").mkdir()
    assert packed(folder).digest == "0x" + keccak(b"").hex()
    assert "nothing/" in zipfile.ZipFile(folder.with_suffix(".zip")).namelist()


def test_the_same_files_make_the_same_zip(tmp_path: Path) -> None:
    one, two = (
        fill(tmp_path / "one", files={"b": b"2", "a": b"1"}),
        fill(tmp_path / "two", files={"a": b"1", "b": b"2"}),
    )
    os.utime(two / "a", (1, 1))
    (two / "b").chmod(0o600)
    packed(one)
    packed(two)
    assert one.with_suffix(".zip").read_bytes() == two.with_suffix(".zip").read_bytes()


def test_a_callback_result_is_its_data(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", None)
    (folder / "computed.json").write_text(json.dumps({"callback-data": "0x" + "0" * 63 + "1"}))
    result = packed(folder, callback=True)
    assert result.digest == "0xb10e2d527612073b26eecdfd717e6a320cf44b4afac2b0732d9fcbe2b7fa0cf6"
    assert result.callback_data == "0x" + "0" * 63 + "1"


def test_links_pipes_and_sockets_are_left_out_and_never_followed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", "/iexec_out")
    plain = packed(folder).digest
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "pipe")
    assert packed(folder).digest == plain
    names = zipfile.ZipFile(folder.with_suffix(".zip")).namelist()
    assert names == ["computed.json", "result.txt"]


@pytest.mark.parametrize("path", ["/etc/passwd", "/iexec_out/../secret", "/iexec_outside", "relative", "/iexec_out\0"])
def test_a_path_outside_the_output_folder_is_no_result(tmp_path: Path, path: str) -> None:
    assert cause(fill(tmp_path / "out", path)) == Failure.COMPUTED_FILE


def test_a_result_that_is_a_link_does_not_exist(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", "/iexec_out/link")
    (folder / "link").symlink_to("result.txt")
    assert cause(folder) == Failure.RESULT_DIGEST


def test_a_result_behind_a_linked_folder_does_not_exist(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", "/iexec_out/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    assert cause(folder) == Failure.RESULT_DIGEST


def test_a_missing_computed_json_is_named_as_the_cause(tmp_path: Path) -> None:
    assert cause(fill(tmp_path / "out", None)) == Failure.COMPUTED_FILE


def test_a_computed_json_that_is_a_link_counts_as_missing(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", None)
    (tmp_path / "elsewhere").write_text(json.dumps({"deterministic-output-path": "/iexec_out"}))
    (folder / "computed.json").symlink_to(tmp_path / "elsewhere")
    assert cause(folder) == Failure.COMPUTED_FILE


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"callback-data": "0x"}', b"[" * 100_000, b"\xff"])
def test_a_broken_computed_json_is_named_as_the_cause(tmp_path: Path, content: bytes) -> None:
    folder = fill(tmp_path / "out", None)
    (folder / "computed.json").write_bytes(content)
    assert cause(folder) == Failure.COMPUTED_FILE


def test_a_name_of_32_characters_is_too_long_and_one_of_31_is_not(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out", files={"n" * 31: b""})
    packed(folder)
    (folder / ("n" * 32)).write_bytes(b"")
    assert cause(folder) == Failure.FILE_NAME


def test_a_folder_may_have_a_long_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out")
    (folder / ("f" * 200)).mkdir()
    packed(folder)


def test_too_many_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out")
    with (folder / "sparse").open("wb") as file:
        file.truncate(2**40)
    assert cause(folder) == Failure.OUTPUT_ZIP


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    assert cause(fill(tmp_path / "out", files={f"f{number}": b"" for number in range(60)})) == Failure.OUTPUT_ZIP


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out")
    (folder / os.fsdecode(b"\xff\xfe")).write_bytes(b"")
    assert cause(folder) == Failure.OUTPUT_ZIP


def test_folders_nested_without_end_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out")
    deep = folder
    for _ in range(8):
        deep = deep / ("d" * 200)
        deep.mkdir()
    assert cause(folder) == Failure.OUTPUT_ZIP


def test_a_path_of_few_characters_and_many_bytes_is_the_apps_fault_and_no_trouble_of_this_machine(
    tmp_path: Path,
) -> None:
    folder = fill(tmp_path / "out")
    here = os.open(folder, os.O_RDONLY)
    for _ in range(18):
        # 55 characters of four bytes each, as an app makes them: from folder to folder.
        os.mkdir("\U0001f600" * 55, dir_fd=here)
        inner = os.open("\U0001f600" * 55, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        assert cause(folder) == Failure.OUTPUT_ZIP
    finally:
        discard(folder)


def test_our_own_files_replace_a_planted_link_instead_of_writing_through_it(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out")
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (folder / "stdout.txt").symlink_to(victim)
    write_into(folder, "stdout.txt", b"printed")
    assert victim.read_bytes() == b"precious"
    assert (folder / "stdout.txt").read_bytes() == b"printed"


def test_a_planted_folder_keeps_its_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out")
    (folder / "stdout.txt").mkdir()
    write_into(folder, "stdout.txt", b"printed")
    assert (folder / "stdout.txt").is_dir()


def test_folders_nested_deeper_than_any_honest_result_fail_the_task(tmp_path: Path) -> None:
    folder = fill(tmp_path / "out")
    (folder / "/".join("a" * PATH_LEVELS)).mkdir(parents=True)
    packed(folder)
    (folder / "/".join("a" * (PATH_LEVELS + 1))).mkdir(parents=True)
    assert cause(folder) == Failure.OUTPUT_ZIP


@pytest.mark.parametrize("now", [b"", b"hell", b"hello, world", b"x" * 5_000_000])
def test_a_file_that_changes_while_it_is_packed_is_this_machines_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: bytes
) -> None:
    folder = fill(tmp_path / "out")
    sized = outputs._require_size

    def change(*given: Any) -> None:
        sized(*given)
        (folder / "result.txt").write_bytes(now)

    monkeypatch.setattr(outputs, "_require_size", change)
    with pytest.raises(TaskDeclined, match="changed"):
        packed(folder)
    assert not list(tmp_path.glob("*.zip*"))


def test_a_file_that_becomes_a_link_while_it_is_packed_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "out")
    (tmp_path / "secret").write_bytes(b"hello")
    sized = outputs._require_size

    def change(*given: Any) -> None:
        sized(*given)
        (folder / "result.txt").unlink()
        (folder / "result.txt").symlink_to(tmp_path / "secret")

    monkeypatch.setattr(outputs, "_require_size", change)
    with pytest.raises(OSError, match="symbolic links"):
        packed(folder)
    assert not list(tmp_path.glob("*.zip*"))
