"""Keys that a key service outside has wrapped. The service is a program, as an operator would write it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from config.key_ring import KeyFile, RingKey
from protocol.errors import BadSetting, Unavailable
from sms.kms import CommandKms

#: Turns the digits around, and notes what it was called with.
PROGRAM = """
import pathlib, sys
what, given = sys.argv[1], sys.stdin.read().strip()
with (pathlib.Path(__file__).parent / "calls").open("a") as calls:
    print(what, file=calls)
print({"wrap": "kms:" + given[::-1], "unwrap": given.removeprefix("kms:")[::-1]}[what])
"""


def service(folder: Path, program: str = PROGRAM) -> CommandKms:
    path = folder / "kms.py"
    path.write_text(program)
    return CommandKms(f"{sys.executable} -SE {path}")


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split()


def key_file(folder: Path, wrapping: CommandKms | None = None) -> KeyFile[RingKey]:
    return KeyFile(folder / "keys", RingKey, setting="SLUICE_SMS_KEY_FILE", fix="-", wrapping=wrapping)


def test_the_file_holds_no_key_and_the_service_is_asked_once_for_each(tmp_path: Path) -> None:
    made = key_file(tmp_path, service(tmp_path))
    secret = made.newest.secret
    assert secret.hex() not in (tmp_path / "keys").read_text()
    assert made.newest.secret == secret
    assert calls(tmp_path) == ["wrap", "unwrap"]
    again = key_file(tmp_path, service(tmp_path))
    assert (again.newest.secret, again.all()[0].secret) == (secret, secret)
    assert calls(tmp_path)[2:] == ["unwrap"]


def test_keys_from_before_are_read_as_they_are_and_wrapped_when_the_file_is_written(tmp_path: Path) -> None:
    clear = key_file(tmp_path).newest
    ring = key_file(tmp_path, service(tmp_path))
    assert ring.newest == clear
    ring.add(1.0, keep=list)
    assert clear.secret.hex() not in (tmp_path / "keys").read_text()
    assert [key.secret for key in ring.all()] == [ring.newest.secret, clear.secret]
    assert ring.drop(lambda key: key.id == clear.id) == [clear]


def test_wrapped_keys_without_the_service_are_an_error_that_says_so(tmp_path: Path) -> None:
    key_file(tmp_path, service(tmp_path))
    with pytest.raises(BadSetting, match="none is set"):
        key_file(tmp_path)


@pytest.mark.parametrize(
    "program",
    ["raise SystemExit(3)", "print()", "print('two\\nlines')", "import sys; print(sys.argv[1] + 'ped')"],
    ids=["exit code", "nothing", "lines", "no key"],
)
def test_a_service_that_fails_makes_no_file_and_no_error_shows_a_key(tmp_path: Path, program: str) -> None:
    with pytest.raises(Unavailable, match="SLUICE_SMS_KMS_COMMAND"):
        key_file(tmp_path, service(tmp_path, program))
    assert not (tmp_path / "keys").exists()


def test_a_service_that_gives_back_another_key_is_refused_before_anything_is_encrypted(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="not give back"):
        key_file(tmp_path, service(tmp_path, "print('00' * 32)"))


def test_a_service_that_prints_the_key_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="does not wrap"):
        key_file(tmp_path, service(tmp_path, "import sys; print(sys.stdin.read().strip())"))


def test_one_that_runs_goes_on_with_its_keys_while_the_service_is_away_and_asks_it_rarely(tmp_path: Path) -> None:
    ring, other = key_file(tmp_path, service(tmp_path)), key_file(tmp_path, service(tmp_path))
    known = ring.newest
    # Another process adds a key, and then the service fails.
    other.add(1.0, keep=list)
    noting = PROGRAM.partition("print({")[0]
    service(tmp_path, f"{noting}raise SystemExit(1)")
    before = len(calls(tmp_path))
    with capture_logs() as logs:
        assert [ring.newest for _ in range(20)] == [known] * 20
    assert [entry["action"] for entry in logs] == ["keys_unread"]
    assert len(calls(tmp_path)) == before + 1
    with pytest.raises(Unavailable):
        ring.add(1.0, keep=list)
    assert ring.newest == known


@pytest.mark.parametrize("command", ["", "an 'open quote", "/no/such/program"])
def test_a_command_that_is_none_is_refused_in_words(tmp_path: Path, command: str) -> None:
    with pytest.raises((BadSetting, Unavailable), match="SLUICE_SMS_KMS_COMMAND"):
        key_file(tmp_path, CommandKms(command))
