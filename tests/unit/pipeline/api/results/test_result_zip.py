"""Zips that strangers may send: each hostile one is refused, each honest one gives the digest of its files."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.api.results import result_zip
from pipeline.api.results.repack import Repacked
from pipeline.api.results.result_zip import check_result, repack
from protocol.errors import BadMessage, StorageUnavailable
from protocol.results.computed import PATH_LEVELS, Computed
from protocol.results.digest import callback_digest, directory_digest, file_digest

RESULT = {"computed.json": b'{"deterministic-output-path": "/iexec_out/result.txt"}', "result.txt": b"hello"}


def make(folder: Path, entries: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> Path:
    path = folder / "result.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        archive.comment = comment
    return path


def make_info(folder: Path, info: zipfile.ZipInfo, content: bytes = b"x") -> Path:
    path = folder / "result.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in RESULT.items():
            archive.writestr(name, data)
        archive.writestr(info, content)
    return path


def computed(path: str) -> bytes:
    return json.dumps({"deterministic-output-path": path}).encode()


def refused(path: Path, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        check_result(path, callback=False)


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    found = check_result(make(tmp_path, RESULT), callback=False)
    assert found.digest == file_digest(hashlib.sha256(b"hello").digest())


def test_the_digest_of_a_folder_covers_its_own_files_only(tmp_path: Path) -> None:
    entries = {"computed.json": computed("/iexec_out/out/"), "out/b": b"B", "out/a": b"A", "out/deep/c": b"C"}
    found = check_result(make(tmp_path, entries), callback=False)
    sums = [(name, hashlib.sha256(content).digest()) for name, content in (("a", b"A"), ("b", b"B"))]
    assert found.digest == directory_digest(sums)


def test_an_empty_folder_has_the_digest_of_nothing(tmp_path: Path) -> None:
    found = check_result(make(tmp_path, {"computed.json": computed("/iexec_out/out"), "out/": b""}), callback=False)
    assert found.digest == directory_digest([])


def test_the_whole_output_folder_can_be_the_result(tmp_path: Path) -> None:
    entries = {"computed.json": computed("/iexec_out"), "a": b"A"}
    found = check_result(make(tmp_path, entries), callback=False)
    assert found.digest == directory_digest([(name, hashlib.sha256(data).digest()) for name, data in entries.items()])


def test_with_a_callback_the_digest_is_that_of_its_data(tmp_path: Path) -> None:
    data = "0x" + "00" * 31 + "2a"
    path = make(tmp_path, {"computed.json": json.dumps({"callback-data": data}).encode()})
    found = check_result(path, callback=True)
    assert (found.digest, found.computed) == (callback_digest(data), Computed(callback_data=data))


def test_a_result_that_the_zip_does_not_hold_is_refused(tmp_path: Path) -> None:
    refused(make(tmp_path, {"computed.json": computed("/iexec_out/gone")}), "does not exist")


def test_a_zip_without_computed_json_is_refused(tmp_path: Path) -> None:
    refused(make(tmp_path, {"result.txt": b"x"}), "no computed.json")


@pytest.mark.parametrize("path", ["/iexec_out/../etc/passwd", "/etc/passwd", "iexec_out/x", "/iexec_outside"])
def test_a_result_path_that_leaves_the_output_folder_is_refused(tmp_path: Path, path: str) -> None:
    refused(make(tmp_path, {"computed.json": computed(path), "x": b"x"}), "not below")


def test_a_computed_json_too_large_to_read_is_refused(tmp_path: Path) -> None:
    refused(make(tmp_path, {"computed.json": b" " * 300_000}), "larger than")


@pytest.mark.parametrize("body", [b"", b"PK", b"not a zip at all, but long enough to be looked at twice"])
def test_a_body_that_is_no_zip_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "result.zip"
    path.write_bytes(body)
    refused(path, "not a")


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:/evil", "a\\..\\evil", "a//b", "./a", "a/./b", "..", "n" * 2000]
)
def test_an_entry_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    refused(make(tmp_path, {**RESULT, name: b"x"}), "leads elsewhere|leads out|characters or")


def test_a_name_with_a_hidden_end_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, {**RESULT, "saveXexe": b"x"})
    path.write_bytes(path.read_bytes().replace(b"saveXexe", b"save\0exe"))
    refused(path, "hidden end|broken")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_an_entry_that_is_neither_file_nor_folder_is_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    refused(make_info(tmp_path, info, b"/etc/passwd"), "neither a file nor a folder")


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = make_info(tmp_path, zipfile.ZipInfo("result.txt"))
    refused(path, "two entries of one name")


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    refused(make(tmp_path, {**RESULT, "result.txt/inner": b"x"}), "a file and a folder")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_compression_that_needs_much_memory_is_refused(tmp_path: Path, method: int) -> None:
    refused(make(tmp_path, RESULT, method), "neither stored nor deflated")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, RESULT)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    refused(path, "neither stored nor deflated")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = make(tmp_path, {**RESULT, "bomb": bytes(10_000_000)})
    assert path.stat().st_size < 20_000
    with pytest.raises(BadMessage, match="unpacks to more"):
        check_result(path, callback=False, max_unpacked=1_000_000)


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, {"computed.json": computed("/iexec_out/bomb"), "bomb": bytes(10_000_000)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 10_000_000), struct.pack("<L", 10)))
    refused(path, "broken")


def test_entries_that_share_the_same_bytes_count_each(tmp_path: Path) -> None:
    path = make(tmp_path, {**RESULT, **{f"copy{number}": bytes(1_000_000) for number in range(20)}})
    with pytest.raises(BadMessage, match="unpacks to more"):
        check_result(path, callback=False, max_unpacked=10_000_000)


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_zip, "MAX_ENTRIES", 5)
    refused(make(tmp_path, {**RESULT, **{f"file{number}": b"" for number in range(4)}}), "more than 5 entries")


def test_a_directory_that_lies_about_its_entry_count_is_refused_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_zip, "MAX_DIRECTORY_BYTES", 300)
    path = make(tmp_path, {**RESULT, **{f"file{number}": b"" for number in range(20)}})
    raw = bytearray(path.read_bytes())
    raw[-14:-10] = struct.pack("<2H", 2, 2)
    path.write_bytes(raw)
    refused(path, "entries, or names")


def test_a_comment_behind_which_a_second_directory_could_hide_is_refused(tmp_path: Path) -> None:
    refused(make(tmp_path, RESULT, comment=b"look here"), "not a plain zip")


def test_a_64_bit_directory_that_would_override_the_checked_one_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, RESULT)
    raw = path.read_bytes()
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    path.write_bytes(raw[:-22] + locator + raw[-22:])
    refused(path, "64-bit")


@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_of_the_pool_that_is_full_or_broken_is_not_the_zips_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    came = make(tmp_path, RESULT)
    checked = check_result(came, callback=False)

    def no_room(*_: object) -> None:
        raise OSError(trouble, "no room")

    monkeypatch.setattr(Repacked, "copy", no_room)
    with pytest.raises(StorageUnavailable, match="no room"):
        repack(came, tmp_path / "stored.zip", checked)


def test_a_corrupted_file_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path, RESULT, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"hello", b"jello"))
    refused(path, "broken")


@pytest.mark.parametrize("at", range(0, 260, 7))
def test_a_zip_with_any_byte_flipped_is_either_read_or_refused(tmp_path: Path, at: int) -> None:
    path = make(tmp_path, RESULT)
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= 0xFF
    path.write_bytes(raw)
    try:
        found = check_result(path, callback=False)
    except BadMessage:
        return
    # Whatever was flipped did not matter: times, modes, versions.
    assert found.digest == file_digest(hashlib.sha256(b"hello").digest())


def test_nothing_is_written_while_a_zip_is_checked(tmp_path: Path) -> None:
    path = make(tmp_path, RESULT)
    check_result(path, callback=False)
    assert list(tmp_path.iterdir()) == [path]


def test_a_zip_made_elsewhere_in_memory_is_read_too(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in RESULT.items():
            archive.writestr(name, content)
    (tmp_path / "result.zip").write_bytes(buffer.getvalue())
    assert check_result(tmp_path / "result.zip", callback=False).computed == Computed("result.txt")


def test_paths_deeper_than_any_honest_result_are_refused(tmp_path: Path) -> None:
    check_result(make(tmp_path, RESULT | {"a/" * (PATH_LEVELS - 1) + "f": b"x"}), callback=False)
    refused(make(tmp_path, RESULT | {"a/" * PATH_LEVELS + "f": b"x"}), "32 folders")


def test_few_entries_may_not_stand_for_many_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_zip, "MAX_ENTRIES", 100)
    deep = {f"{number}/" + "a/" * 29 + "f": b"x" for number in range(10)}
    refused(make(tmp_path, RESULT | deep), "folders")


# -- what is stored ----------------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b.txt", "out/a", "out/b", "out/c/d", "out", "stdout.txt", "x.html"])


@given(
    files=st.dictionaries(names, st.binary(max_size=50), max_size=6),
    path=st.sampled_from(["", "/", "/a", "/b.txt", "/out", "/out/", "/out/a", "/out/c"]),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    prefix=st.binary(max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_what_is_stored_has_the_same_digest_and_holds_only_what_that_covers(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], path: str, method: int, prefix: bytes
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    came = make(folder, files | {"computed.json": computed(f"/iexec_out{path}")}, method)
    came.write_bytes(prefix + came.read_bytes())
    try:
        checked = check_result(came, callback=False)
    except BadMessage:
        return
    stored, again = folder / "stored.zip", folder / "again.zip"
    repack(came, stored, checked)
    assert check_result(stored, callback=False) == checked
    wanted = path.strip("/")
    with zipfile.ZipFile(stored) as archive:
        found = [name for name in archive.namelist() if not name.endswith("/")]
        held = [name for name in found if not name.startswith("unproven/")]
        assert set(found) - set(held) <= {"unproven/stdout.txt"}
        assert all(name in ("computed.json", wanted) or name.rpartition("/")[0] == wanted for name in held)
        assert all(archive.read(name) == files[name] for name in held if name != "computed.json")
    # The same bytes, whatever is beside the result, so that IPFS holds it once.
    other = make(folder, {**files, "zz.sh": b"evil", "computed.json": computed(f"/iexec_out{path}")}, method)
    if wanted:
        repack(other, again, check_result(other, callback=False))
        assert again.read_bytes() == stored.read_bytes()
    assert stored.read_bytes()[:4] == b"PK\x03\x04"
