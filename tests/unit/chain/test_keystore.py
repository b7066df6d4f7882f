"""Private keys from a keystore, a key file or a setting, and how each is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account

from chain.keystore import load_key
from config.settings import read_settings
from protocol.errors import BadKeystore, BadSetting

SECRET = "0x" + "12" * 32
SECRET_BYTES = bytes.fromhex("12" * 32)
WALLET = Account.from_key(SECRET).address.lower()
PASSWORD = "correct horse"


@pytest.fixture
def keystore(tmp_path: Path) -> Path:
    path = tmp_path / "wallet.json"
    path.write_text(json.dumps(Account.encrypt(SECRET_BYTES, PASSWORD, kdf="pbkdf2", iterations=10)))
    return path


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(("kdf", "iterations"), [("pbkdf2", 10), ("scrypt", 8)])
def test_a_keystore_opens_with_its_password(kdf: str, iterations: int, tmp_path: Path, password_file: Path) -> None:
    path = tmp_path / "wallet.json"
    path.write_text(json.dumps(Account.encrypt(SECRET_BYTES, PASSWORD, kdf=kdf, iterations=iterations)))  # type: ignore[arg-type] # a literal there

    key = load_key(read_settings(keystore=path, keystore_password_file=password_file))

    assert key.wallet == WALLET


def test_a_wrong_password_is_said_without_showing_it(keystore: Path, password_file: Path) -> None:
    password_file.write_text("battery staple")

    with pytest.raises(BadKeystore, match="the password does not open it") as caught:
        load_key(read_settings(keystore=keystore, keystore_password_file=password_file))

    assert "battery" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "{}",
        '{"version": 3}',
        '{"version": 3, "crypto": {}}',
        '{"version": 3, "crypto": null}',
    ],
)
def test_a_file_that_is_no_keystore_is_said_to_be_none(content: str, keystore: Path, password_file: Path) -> None:
    keystore.write_text(content)

    with pytest.raises(BadKeystore, match="not an Ethereum V3 keystore"):
        load_key(read_settings(keystore=keystore, keystore_password_file=password_file))


@pytest.mark.parametrize(
    ("place", "value"),
    [("version", 1), ("cipher", "aes-256-gcm"), ("kdf", "argon2"), ("mac", "zz")],
)
def test_a_keystore_of_another_kind_is_refused(place: str, value: object, keystore: Path, password_file: Path) -> None:
    document = json.loads(keystore.read_text())
    (document if place == "version" else document["crypto"])[place] = value
    keystore.write_text(json.dumps(document))

    with pytest.raises(BadKeystore, match="not an Ethereum V3 keystore"):
        load_key(read_settings(keystore=keystore, keystore_password_file=password_file))


def test_a_missing_keystore_is_named(tmp_path: Path, password_file: Path) -> None:
    with pytest.raises(BadKeystore, match=r"nowhere\.json cannot be used: it is absent"):
        load_key(read_settings(keystore=tmp_path / "nowhere.json", keystore_password_file=password_file))


def test_a_keystore_without_a_password_file_says_which_setting_is_missing(keystore: Path) -> None:
    with pytest.raises(BadSetting, match="SLUICE_KEYSTORE_PASSWORD_FILE"):
        load_key(read_settings(keystore=keystore))


def test_a_key_file_of_its_owner_alone_is_taken(key_file: Path) -> None:
    assert load_key(read_settings(key_file=key_file)).wallet == WALLET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_file_that_others_may_read_is_refused_with_the_cure(mode: int, key_file: Path) -> None:
    key_file.chmod(mode)

    with pytest.raises(BadKeystore, match="chmod 600"):
        load_key(read_settings(key_file=key_file))


@pytest.mark.parametrize("content", ["", "0x1234", "hello", "0x" + "00" * 32])
def test_a_key_file_without_a_key_is_refused_without_showing_it(content: str, key_file: Path) -> None:
    key_file.write_text(content)

    with pytest.raises(BadKeystore, match="holds no private key") as caught:
        load_key(read_settings(key_file=key_file))

    assert not content or content not in str(caught.value)


def test_a_key_from_the_environment_is_taken() -> None:
    assert load_key(read_settings(private_key=SECRET)).wallet == WALLET


def test_no_wallet_at_all_says_how_to_give_one() -> None:
    with pytest.raises(BadSetting, match="no wallet is given"):
        load_key(read_settings())


def test_two_wallets_are_one_too_many(key_file: Path) -> None:
    with pytest.raises(BadSetting, match="SLUICE_KEY_FILE and SLUICE_PRIVATE_KEY both name a wallet"):
        load_key(read_settings(key_file=key_file, private_key=SECRET))
