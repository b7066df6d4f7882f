"""What `sluice init` asks, and the files that it writes, without a node."""

from __future__ import annotations

import shlex
import stat
import subprocess
from pathlib import Path

import pytest
import typer

from ops.new_pool import files
from ops.new_pool.files import Places, env_text
from ops.new_pool.questions import Questions
from protocol.errors import BadInput, BadKeystore, BadSetting

ROOT = Path(__file__).parents[4]


def number(text: str) -> int:
    if not text.isdigit():
        raise BadInput(what=f"{text} is no number.")
    return int(text)


def test_an_option_is_checked_and_never_asked_for() -> None:
    assert Questions(people=True, defaults=False).ask("--n", "5", "Number", number) == 5
    with pytest.raises(BadInput, match="x is no number"):
        Questions(people=True, defaults=False).ask("--n", "x", "Number", number)


def test_without_people_defaults_are_taken_and_what_has_none_is_named() -> None:
    alone = Questions(people=False, defaults=False)
    assert alone.ask("--n", None, "Number", number, default="7") == 7
    with pytest.raises(BadInput, match=r"--n is not given \(Number\), and there is nobody to ask"):
        alone.ask("--n", None, "Number", number)
    with pytest.raises(BadInput, match="nobody to ask"):
        alone.ask_password("--password-file", "Password")


def test_a_person_is_told_what_is_wrong_and_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["x", " 12 "])
    monkeypatch.setattr(typer, "prompt", lambda text, **_: next(answers))
    assert Questions(people=True, defaults=True).ask("--n", None, "Number", number) == 12
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "x is no number.\n")


def test_an_env_file_says_the_same_to_a_shell_and_to_docker_compose(tmp_path: Path) -> None:
    values = {"A": "https://x.example/?a=b&c=d", "B": "plain-1_2.3:4@5%", "C": "two words", "D": ""}
    (tmp_path / ".env").write_text(env_text(values))
    shown = "set -a; . ./.env; set +a; for name in A B C D; do printenv $name; done"
    done = subprocess.run(["sh", "-euc", shown], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(values.values())
    # docker compose reads bare values and such in single quotes as they are.
    for line in env_text(values).splitlines()[1:]:
        assert shlex.split(line) == [line.replace("'", "")]


@pytest.mark.parametrize("value", ["mongodb://me:it's@host/", "two\nlines"])
def test_what_an_env_file_cannot_hold_is_refused_by_its_name_alone(value: str) -> None:
    with pytest.raises(BadSetting, match=r"^Setting SLUICE_X is wrong: .* write %27") as refused:
        env_text({"A": "b", "SLUICE_X": value})
    assert value not in str(refused.value)


@pytest.mark.usefixtures("cheap_keystores")
def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("mine")
    with pytest.raises(BadInput, match="not overwritten"):
        Places.of(tmp_path)
    places = Places(tmp_path / "other", compose=True)
    files.make_wallet(places)
    before = places.keystore.read_bytes()
    with pytest.raises(BadKeystore, match="never overwritten"):
        files.make_wallet(places)
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(BadKeystore, match="another one is there"):
        files.copy_wallet(places, other, "password")
    assert places.keystore.read_bytes() == before


@pytest.mark.usefixtures("cheap_keystores")
def test_docker_compose_gets_every_file_it_mounts_and_only_owners_can_read_secrets(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text((ROOT / "docker-compose.yml").read_text())
    places = Places.of(tmp_path)
    files.make_wallet(places)
    made = files.write_compose_secrets(places, "pool.example")
    files.write_env(places, {"SLUICE_CHAIN_ID": "1"})
    mounted = {
        line.rpartition("secrets/")[2].rstrip(" }")
        for line in (ROOT / "docker-compose.yml").read_text().splitlines()
        if "file: ./docker/secrets/" in line
    }
    assert mounted <= {path.name for path in places.secrets.iterdir()}
    secret = {"keystore.json", "keystore-password", "key.pem", "ca-key.pem", *files.PASSWORDS}
    for path in [places.env, *(path for path in places.secrets.iterdir() if path.name in secret)]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert files.write_compose_secrets(places, "pool.example") == []
    assert len(made) == 7
    assert len({(places.secrets / name).read_text() for name in files.PASSWORDS}) == len(files.PASSWORDS)


def test_who_may_read_a_secret_of_the_containers_is_said_as_chown_takes_it() -> None:
    assert (files.OWNERS["key.pem"].words, files.OWNERS["key.pem"].mode) == ("999", 0o400)
    assert (files.OWNERS["mongodb-password"].words, files.OWNERS["mongodb-password"].mode) == ("999:10001", 0o440)
