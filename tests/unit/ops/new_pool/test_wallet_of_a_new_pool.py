"""`sluice init` and the pool's wallet: whoever names it how, the settings lead to a keystore and its password."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from eth_account import Account

from chain.keystore import open_keystore
from ops.new_pool import checks
from ops.new_pool.checks import ChainFound, PoolFound, WalletFound
from ops.new_pool.files import SECRETS, Places
from ops.new_pool.plan import Given, plan
from ops.new_pool.questions import Questions
from ops.new_pool.write import Written, write
from protocol.errors import BadKeystore
from protocol.ethereum.signing import Key
from protocol.types import Contract, Wei

pytestmark = pytest.mark.usefixtures("cheap_keystores")

KEY = Key(b"\x11" * 32)
PASSWORD = "the owner's"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's folder with the owner's keystore elsewhere, and a node that knows the workerpool."""
    found = PoolFound(Contract("0x" + "aa" * 20), Contract("0x" + "bb" * 20), KEY.wallet, "a pool")
    monkeypatch.setattr(checks, "look_at_chain", lambda url: ChainFound(url, 134, 1000, 5.0))
    monkeypatch.setattr(checks, "look_at_pool", lambda *_: found)
    monkeypatch.setattr(checks, "look_at_wallet", lambda *_: WalletFound(Wei(1), Wei(0)))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "owner.json").write_text(json.dumps(Account.encrypt(b"\x11" * 32, PASSWORD, iterations=2)))
    for name in ("owner.json", "owner.password"):
        (elsewhere / name).touch()
        (elsewhere / name).chmod(0o600)
    (elsewhere / "owner.password").write_text(PASSWORD + "\n")
    place = tmp_path / "pool"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def answers(monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str]) -> None:
    """A person's: by what the question contains; what has a default is left to it."""

    def prompt(text: str, *, default: str | None = None, **_: object) -> str:
        said = next((answer for part, answer in given.items() if part in text), default)
        assert said is not None, text
        return said

    monkeypatch.setattr(typer, "prompt", prompt)


def init(folder: Path, given: Given) -> tuple[Written, dict[str, str]]:
    """Plan and write; returns what was written, and the settings."""
    made = plan(given, Places.of(folder), Questions(people=True, defaults=False))
    return write(made), dict(made.env)


NAMED = {
    "--rpc": "http://127.0.0.1:8545",
    "--workerpool": "0x" + "bb" * 20,
    "--host": "pool.example",
    "--public-rpc": "https://rpc.example",
    "Password of": PASSWORD,
}


@pytest.mark.parametrize("keystore", ["typed", "option"])
@pytest.mark.parametrize("password", ["typed", "option"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_keystore_that_is_there_is_the_one_that_the_settings_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, keystore: str, password: str, relative: bool
) -> None:
    elsewhere = Path("../elsewhere") if relative else folder.parent / "elsewhere"
    path, file = elsewhere / "owner.json", elsewhere / "owner.password"
    answers(monkeypatch, NAMED | {"--keystore": str(path)})
    given = Given(keystore=path if keystore == "option" else None, password_file=file if password == "option" else None)
    written, env = init(folder, given)
    named, secret = Path(env["SLUICE_KEYSTORE"]), Path(env["SLUICE_KEYSTORE_PASSWORD_FILE"])
    assert (named.is_absolute(), secret.is_absolute(), named.samefile(path)) == (True, True, True)
    assert open_keystore(named, secret.read_text().rstrip("\n")).wallet == KEY.wallet == written.wallet
    assert secret.samefile(file) is (password == "option")
    assert [one.name for one in written.files] == [*([] if password == "option" else ["wallet.password"]), ".env"]


@pytest.mark.parametrize("file", [None, "../elsewhere/owner.password", "new.password"])
def test_a_new_wallet_has_the_password_of_the_file_that_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str | None
) -> None:
    answers(monkeypatch, NAMED)
    written, env = init(folder, Given(new_wallet=True, password_file=None if file is None else Path(file)))
    named, secret = Path(env["SLUICE_KEYSTORE"]), Path(env["SLUICE_KEYSTORE_PASSWORD_FILE"])
    assert secret == (folder / (file or "wallet.password"))
    assert open_keystore(named, secret.read_text().rstrip("\n")).wallet == written.wallet
    made = [] if file == "../elsewhere/owner.password" else [file or "wallet.password"]
    assert [one.name for one in written.files] == ["wallet.json", *made, ".env"]


def test_with_compose_a_new_wallet_has_the_password_of_the_file_that_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, NAMED)
    monkeypatch.setattr("ops.new_pool.files.give_to_containers", lambda _: [])
    (folder / "docker-compose.yml").touch()
    written, _ = init(folder, Given(new_wallet=True, password_file=Path("../elsewhere/owner.password")))
    secret = (folder / SECRETS / "keystore-password").read_text()
    assert secret == PASSWORD + "\n"
    assert open_keystore(folder / SECRETS / "keystore.json", PASSWORD).wallet == written.wallet


def test_a_typed_password_never_stands_behind_another_one_in_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, NAMED)
    left = folder / "wallet.password"
    left.write_text("of another wallet\n")
    left.chmod(0o600)
    with pytest.raises(BadKeystore, match="another password is there"):
        init(folder, Given(keystore=folder.parent / "elsewhere" / "owner.json"))
    assert not (folder / ".env").exists()
