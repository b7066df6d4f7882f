"""What `sluice restore` makes of an archive before it touches a database."""

from __future__ import annotations

import os
from pathlib import Path

import bson
import pytest

from config.settings import read_settings
from ops.archive import open_archive, write_archive
from ops.backup.put_back import key_places, keys_in_place, may_have_sold, without_place
from protocol.errors import NotPossible


def backup(path: Path, *, orders: int = 0, lines: str = "SLUICE_CHAIN_ID=1\n") -> Path:
    with write_archive(path, {}) as archive:
        archive.add("database/orders.bson", [bson.encode({"_id": number}) for number in range(orders)])
        archive.add("settings.env", [lines.encode()])
        archive.add("keys/token.secret", [b"of the backup"])
    return path


@pytest.mark.parametrize(
    ("orders", "lines", "now", "held"),
    [
        (0, "SLUICE_CHAIN_ID=1\n", None, False),
        (0, "# SLUICE_ORDERS_FILE is left out\n", None, False),
        (1, "SLUICE_CHAIN_ID=1\n", None, True),
        (0, "SLUICE_ORDERS_FILE=offers.toml\n", None, True),
        (0, "SLUICE_CHAIN_ID=1\nSLUICE_ORDERS_FILE=offers.toml\n", None, True),
        (0, "SLUICE_CHAIN_ID=1\n", Path("offers.toml"), True),
    ],
)
def test_orders_may_have_been_signed_since_a_backup_with_orders_or_settings_that_name_offers(
    tmp_path: Path, orders: int, lines: str, now: Path | None, held: bool
) -> None:
    with open_archive(backup(tmp_path / "backup", orders=orders, lines=lines)) as archive:
        assert may_have_sold(archive, read_settings(orders_file=now)) is held


def test_a_keystore_that_the_settings_have_no_place_for_is_named(tmp_path: Path) -> None:
    with write_archive(tmp_path / "backup", {}) as archive:
        archive.add("keys/keystore.json", [b"{}"])
        archive.add("keys/token.secret", [b"of the backup"])
    with open_archive(tmp_path / "backup") as archive:
        nowhere, somewhere = read_settings(home=tmp_path), read_settings(home=tmp_path, keystore=tmp_path / "key")
        assert without_place(archive, nowhere) == ("keystore.json",)
        assert [*key_places(archive, nowhere, replace=True).values()] == [tmp_path / "token.secret"]
        assert without_place(archive, somewhere) == ()


def test_key_files_take_their_places_only_once_all_else_is_done(tmp_path: Path) -> None:
    new, old = tmp_path / "home" / "token.secret", tmp_path / "admin.token"
    old.write_text("before")
    contents = {new: b"of the backup", old: b"of the backup, too"}
    with pytest.raises(KeyboardInterrupt), keys_in_place(contents):
        raise KeyboardInterrupt
    assert (new.exists(), old.read_text()) == (False, "before")
    with keys_in_place(contents):
        assert (new.exists(), old.read_text()) == (False, "before")
    assert {place: place.read_bytes() for place in contents} == contents
    assert {place.stat().st_mode & 0o777 for place in contents} == {0o600}
    assert sorted(place for place in tmp_path.rglob("*") if place.is_file()) == sorted(contents)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_key_files_that_root_restores_belong_to_the_user_of_the_scheduler(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 23456)
    new, old = tmp_path / "token.secret", tmp_path / "admin.token"
    old.write_text("before")
    old.chmod(0o400)
    os.chown(old, 12346, 23457)
    with keys_in_place({new: b"1", old: b"2"}):
        pass
    found = [(path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) for path in (new, old)]
    assert found == [(12345, 23456, 0o600), (12346, 23457, 0o400)]


def test_a_place_where_no_key_file_can_be_written_is_named_before_anything_is_replaced(tmp_path: Path) -> None:
    good, bad, began = tmp_path / "admin.token", tmp_path / "file" / "token.secret", False
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotPossible, match=f"^{bad} cannot be written: "), keys_in_place({good: b"1", bad: b"2"}):
        began = True
    assert not began
    assert [place.name for place in tmp_path.iterdir()] == ["file"]


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    place = tmp_path / "token.secret"
    place.mkdir()
    with (
        open_archive(backup(tmp_path / "backup")) as archive,
        pytest.raises(NotPossible, match=f"^{place} cannot be read: "),
    ):
        key_places(archive, read_settings(home=tmp_path), replace=True)
    place.rmdir()
    with open_archive(tmp_path / "backup") as archive:
        assert list(key_places(archive, read_settings(home=tmp_path), replace=True).values()) == [place]
