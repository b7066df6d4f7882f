from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import read_settings
from pipeline.api.auth.secret import SECRET_BYTES, derived, load_secret
from protocol.errors import BadSetting


def test_the_secret_is_made_once_and_readable_by_nobody_else(tmp_path: Path) -> None:
    settings = read_settings(home=tmp_path / "home")
    secret = load_secret(settings)
    path = tmp_path / "home" / "token.secret"
    assert (len(secret), path.stat().st_mode & 0o777) == (SECRET_BYTES, 0o600)
    assert load_secret(settings) == secret
    assert list(path.parent.iterdir()) == [path]


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(bytes(SECRET_BYTES))
    path.chmod(0o644)
    with pytest.raises(BadSetting, match="chmod 600"):
        load_secret(read_settings(token_secret_file=path))


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(BadSetting, match="fewer than"):
        load_secret(read_settings(token_secret_file=path))


def test_keys_of_different_purposes_differ() -> None:
    assert derived(b"s" * 32, "token") != derived(b"s" * 32, "challenge")
