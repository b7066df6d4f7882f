"""`sluice keys`: what there is, what is replaced, and what ends by that."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from config.settings import read_settings, settings
from ops import cli
from ops.admin import keys
from pipeline.api.admin.access import operator_token
from pipeline.api.auth.secret import KeyRing
from protocol.errors import BadSetting


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    settings.cache_clear()
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    settings.cache_clear()
    code = cli.run(["keys", *words])
    out, err = capsys.readouterr()
    return code, out + err


def make_both(home: Path) -> None:
    """The keys that a scheduler makes at its first start."""
    KeyRing(home / "token.secret")
    operator_token(read_settings(home=home))


def test_nothing_is_made_by_looking(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "show") == (0, "No key was made yet.\n")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("words", [("tokens",), ("admin",), ("tokens", "--dry-run"), ("admin", "--dry-run")])
def test_a_key_that_is_not_there_is_not_replaced(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, said = run(capsys, "rotate", *words)
    path = home / ("token.secret" if "tokens" in words else "admin.token")
    assert (code, f"there is no key to replace: {path} does not exist" in said) == (2, True)
    assert list(home.iterdir()) == []


def test_of_two_keys_none_is_replaced_if_one_is_not_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = KeyRing(home / "token.secret").newest
    assert run(capsys, "rotate", "tokens", "admin")[0] == 2
    assert KeyRing(home / "token.secret").all() == (first,)


def test_a_dry_run_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_both(home)
    before = {path: path.read_bytes() for path in home.iterdir()}
    code, said = run(capsys, "rotate", "tokens", "admin", "--dry-run")
    assert (code, "would be added" in said, "would be in" in said) == (0, True, True)
    assert {path: path.read_bytes() for path in home.iterdir()} == before


def test_a_former_key_verifies_for_two_hours_unless_it_is_dropped_at_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = KeyRing(home / "token.secret").newest
    code, said = run(capsys, "rotate", "tokens", "--json")
    assert code == 0
    (done,) = json.loads(said)
    assert done["path"] == str(home / "token.secret")
    assert done["dropped"] == []
    assert f"Tokens by the key {first.id}, at " in done["becomes_invalid"][0]
    shown = json.loads(run(capsys, "show", "--json")[1])
    assert [(key["name"], key["state"]) for key in shown] == [(done["key"], "signs"), (first.id, "verifies")]
    assert round(shown[1]["until"] - shown[0]["made_at"]) == 7200

    code, said = run(capsys, "rotate", "tokens", "--at-once")
    assert (code, "becomes invalid: Every machine's token" in said) == (0, True)
    assert len(json.loads(run(capsys, "show", "--json")[1])) == 1


def test_no_command_prints_a_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_both(home)
    said = "".join(run(capsys, *words)[1] for words in (("rotate", "tokens", "admin"), ("show",), ("show", "--json")))
    token, ring = (home / "admin.token").read_text().strip(), json.loads((home / "token.secret").read_text())
    assert token not in said
    assert not any(key["secret"] in said for key in ring["keys"])
    assert stat.S_IMODE((home / "admin.token").stat().st_mode) == 0o600


def test_a_token_of_the_environment_is_replaced_there(home: Path) -> None:
    now = read_settings(admin_token="x" * 30)
    with pytest.raises(BadSetting, match="Replace it where it is set"):
        keys.rotate_admin(now, at_once=False, dry_run=False)
    assert keys.show(now)[0].state == "of the environment: replace it there"
    assert list(home.iterdir()) == []


def test_the_secret_service_gets_no_new_key_beside_its_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["sms", "rotate"])
    said = capsys.readouterr().err
    assert (code, f"there is no key to replace: {home / 'sms.keys'} does not exist" in said) == (2, True)
    assert list(home.iterdir()) == []


def test_a_token_file_that_is_no_text_is_named_in_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "admin.token").write_bytes(b"\xff" * 40)
    code, said = run(capsys, "show")
    assert (code, said.count("\n")) == (2, 1)
    assert "SLUICE_ADMIN_TOKEN_FILE" in said
    settings.cache_clear()
    assert cli.run(["status"]) == 2
    assert "SLUICE_ADMIN_TOKEN_FILE" in capsys.readouterr().err
