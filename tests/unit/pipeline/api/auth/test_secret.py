"""The key file of tokens and challenges: modes, rotation, overlap."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from config.key_ring import OLD_ID, SECRET_BYTES, derived
from config.settings import read_settings
from pipeline.api.auth.secret import OVERLAP_SECONDS, KeyRing
from protocol.errors import BadSetting

NOW = 2_000_000_000.0


def test_the_keys_are_made_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    settings = read_settings(home=tmp_path / "home")
    ring = KeyRing.of(settings)
    path = tmp_path / "home" / "token.secret"
    assert (len(ring.newest.secret), path.stat().st_mode & 0o777) == (SECRET_BYTES, 0o600)
    assert KeyRing.of(settings).newest == ring.newest
    assert list(path.parent.iterdir()) == [path]


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(bytes(SECRET_BYTES))
    path.chmod(0o644)
    with pytest.raises(BadSetting, match="chmod 600"):
        KeyRing(path)


@pytest.mark.parametrize("content", [b"short", b'{"keys": []}', b'{"keys": [{"id": "a"}]}', b'{"keys": 3}', b""])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadSetting, match=r"fewer than|without"):
        KeyRing(_file(tmp_path, content))


def test_keys_of_different_purposes_differ(tmp_path: Path) -> None:
    keys = KeyRing(_file(tmp_path, b"s" * 32)).newest
    assert len({keys.token, keys.challenge, keys.logs}) == 3
    assert "secret" not in repr(keys)


def test_a_file_of_the_release_before_goes_on_working(tmp_path: Path) -> None:
    secret = os.urandom(SECRET_BYTES)
    ring = KeyRing(_file(tmp_path, secret))
    assert (ring.newest.id, ring.newest.token) == (OLD_ID, derived(secret, "token"))
    ring.rotate(NOW)
    assert [key.secret for key in ring.verifying(NOW)][1:] == [secret]


def test_after_a_rotation_the_newest_key_signs_and_the_former_verifies_for_the_overlap(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "secret")
    first = ring.newest
    second, dropped = ring.rotate(NOW)
    assert (ring.newest, dropped) == (second, [])
    assert ring.verifying(NOW + OVERLAP_SECONDS - 1) == [second, first]
    assert ring.verifying(NOW + OVERLAP_SECONDS) == [second]
    third, dropped = ring.rotate(NOW + OVERLAP_SECONDS)
    assert (ring.verifying(NOW + OVERLAP_SECONDS), dropped) == ([third, second], [first])


def test_a_rotation_at_once_leaves_no_older_key(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "secret")
    first = ring.newest
    new, dropped = ring.rotate(NOW, at_once=True)
    assert (ring.all(), dropped) == ((new,), [first])


def test_another_process_learns_of_a_rotation_at_its_next_use(tmp_path: Path) -> None:
    ring, other = KeyRing(tmp_path / "secret"), KeyRing(tmp_path / "secret")
    new, _ = ring.rotate(NOW)
    assert other.newest == new
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_the_keys_last_read_are_kept_while_the_file_is_away(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "secret")
    first = ring.newest
    (tmp_path / "secret").unlink()
    assert ring.newest == first


@pytest.mark.parametrize("spoilt", ["cannot be read", "others can read it", "half of it is written"])
def test_the_keys_last_read_are_kept_while_the_file_cannot_be_used(tmp_path: Path, spoilt: str) -> None:
    ring, path = KeyRing(tmp_path / "secret"), tmp_path / "secret"
    first = ring.newest
    path.unlink()
    if spoilt == "cannot be read":
        # Of all errors of reading, the one that root gets too.
        path.mkdir(mode=0o700)
    else:
        path.write_bytes(b"{")
        path.chmod(0o644 if spoilt == "others can read it" else 0o600)
    assert ring.verifying(NOW) == [first]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_a_rotation_by_root_leaves_the_keys_to_the_user_of_the_api(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 23456)
    ring, path = KeyRing(tmp_path / "secret"), tmp_path / "secret"
    ring.rotate(NOW)
    ring.rotate(NOW + 1, at_once=True)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 23456, 0o600)


def test_rotations_at_the_same_time_lose_no_key(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "secret")
    threads = [threading.Thread(target=KeyRing(tmp_path / "secret").rotate, args=(NOW,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ring.all()) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    return path
