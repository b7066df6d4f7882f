"""Archives of backups and support bundles: whole or not there, and every damaged byte is noticed."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import read_settings
from ops.archive import MANIFEST, open_archive, write_archive
from ops.backup.contents import FORMAT, KIND, Pool, require_usable
from ops.settings_table import env_lines
from pipeline.store.database.copies import split
from pipeline.store.documents import SCHEMA
from protocol.errors import BadBackup, BadInput

POOL = Pool(31337, "0x" + "11" * 20, "0x" + "22" * 20)
ABOUT = {
    "kind": KIND,
    "format": FORMAT,
    "schema": SCHEMA,
    "sluice": "1.0",
    "pool": {"chain_id": POOL.chain_id, "hub": POOL.hub, "workerpool": POOL.workerpool},
}


def made(path: Path, **about: object) -> Path:
    with write_archive(path, ABOUT | about) as archive:
        archive.add("database/tasks.bson", [bson.encode({"_id": number, "text": "x" * 50}) for number in range(40)])
        archive.add("settings.env", [b"SLUICE_CHAIN_ID=1\n"])
    return path


def read(path: Path) -> None:
    """As `restore` does before it changes anything."""
    with open_archive(path) as archive:
        require_usable(archive, POOL)
        archive.check()


def test_an_archive_can_be_read_by_its_owner_only_and_names_each_member_with_its_counts(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    read(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    members = json.loads(zipfile.ZipFile(path).read(MANIFEST))["members"]
    assert [(member["name"], member["items"]) for member in members] == [
        ("database/tasks.bson", 40),
        ("settings.env", 1),
    ]


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), write_archive(tmp_path / "a", ABOUT) as archive:
        archive.add("member", (bytes([1 // number]) for number in (1, 0)))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("mine")
    with pytest.raises(BadInput, match="not overwritten"):
        made(path)
    # Another command was faster: it came to be while this one was being written.
    path.unlink()
    with pytest.raises(BadInput, match="cannot be written"), write_archive(path, ABOUT):
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_an_archive_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(BadBackup):
            read(path)


def test_whatever_byte_is_changed_the_content_is_refused_or_still_what_was_written(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    whole, refused = path.read_bytes(), 0
    with open_archive(path) as archive:
        content = [list(archive.pieces(member)) for member in archive.members]
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            with open_archive(path) as archive:
                # Some bits of ZIP mean nothing to whoever reads: a time, a copy of a size.
                assert [list(archive.pieces(member)) for member in archive.members] == content
        except BadBackup:
            refused += 1
    assert refused > len(whole) / 2


def test_another_content_of_a_member_is_refused_though_the_zip_is_right(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, b"SLUICE_CHAIN_ID=2\n" if name == "settings.env" else content)
    with pytest.raises(BadBackup, match=r"settings.env in it is not what was written \(SHA-256\)"):
        read(path)


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"kind": "sluice support bundle"}, "it is a sluice support bundle"),
        ({"format": FORMAT + 1, "sluice": "9.9"}, "Sluice 9.9 made it, which is newer than this one"),
        ({"schema": SCHEMA + 1}, f"newer than this one \\(schema {SCHEMA + 1}, here {SCHEMA}\\)"),
        ({"pool": {**ABOUT["pool"], "chain_id": 5}}, "it is of chain 5, and the settings name 31337"),  # type: ignore[dict-item]
        ({"pool": {**ABOUT["pool"], "hub": "0x"}}, "it is of hub 0x,"),  # type: ignore[dict-item]
        ({"pool": None}, "it is no backup"),
    ],
)
def test_a_backup_that_does_not_belong_here_is_refused_in_one_sentence(
    tmp_path: Path, about: dict[str, object], why: str
) -> None:
    path = made(tmp_path / "a", **about)
    with pytest.raises(BadBackup, match=why):
        read(path)


@pytest.mark.parametrize("content", [None, b"", b"something else", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadBackup):
        read(path)


@given(st.lists(st.dictionaries(st.text("abc", max_size=3), st.binary(max_size=40))), st.data())
def test_documents_come_back_from_pieces_that_are_cut_anywhere(
    documents: list[dict[str, bytes]], data: st.DataObject
) -> None:
    whole = b"".join(bson.encode(document) for document in documents)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [bson.decode(document) for document in split(pieces)] == documents
    if whole:
        with pytest.raises(ValueError, match="no document"):
            list(split([whole[:-1]]))


def test_an_env_file_has_what_is_set_and_only_names_what_is_secret() -> None:
    settings = read_settings(
        worker_name="m1", rpc_url="https://node.example/v2/key", amqp_url="amqp://u:p@h", log_level="info"
    )
    assert env_lines(settings, secrets=False) == [
        "# SLUICE_AMQP_URL holds a secret and is left out.",
        "SLUICE_LOG_LEVEL=info",
        "# SLUICE_RPC_URL holds a secret and is left out.",
        "SLUICE_WORKER_NAME=m1",
    ]
    assert "SLUICE_AMQP_URL=amqp://u:p@h" in env_lines(settings, secrets=True)
