"""The process's wallet: one key, from one of three places. Nothing of a key or password reaches a message or a log.

SLUICE_KEYSTORE + SLUICE_KEYSTORE_PASSWORD_FILE    Ethereum V3 keystore (what geth, MetaMask and the iExec CLI write)
SLUICE_KEY_FILE                                    64 hex digits in a file that only its owner can read
SLUICE_PRIVATE_KEY                                 64 hex digits in the environment: visible to all who see the process
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

from config.settings import Settings
from protocol.errors import BadInput, BadKeystore, BadSetting
from protocol.ethereum.library import load_eth_account
from protocol.ethereum.signing import Key

#: Permission bits of anybody but the owner.
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def load_key(settings: Settings) -> Key:
    """The private key that the settings name.

    Raises BadKeystore for an unusable file, BadSetting for none or several.
    """
    given = {
        "SLUICE_KEYSTORE": settings.keystore is not None,
        "SLUICE_KEY_FILE": settings.key_file is not None,
        "SLUICE_PRIVATE_KEY": settings.private_key is not None,
    }
    chosen = [name for name, present in given.items() if present]
    if len(chosen) > 1:
        raise BadSetting(name=chosen[0], why=f"{' and '.join(chosen)} both name a wallet", fix="Keep one of them.")
    if settings.keystore is not None:
        return _load_keystore(settings.keystore, settings.keystore_password_file)
    if settings.key_file is not None:
        return _load_key_file(settings.key_file)
    if settings.private_key is not None:
        return _parse_key(settings.private_key.get_secret_value(), "SLUICE_PRIVATE_KEY")
    raise BadSetting(
        name="SLUICE_KEYSTORE", why="no wallet is given", fix=f"Set it, or one of {', '.join(list(given)[1:])}."
    )


def _load_keystore(path: Path, password_file: Path | None) -> Key:
    """The key of `SLUICE_KEYSTORE`, decrypted with the password in `password_file`."""
    if password_file is None:
        raise BadSetting(
            name="SLUICE_KEYSTORE_PASSWORD_FILE", why="it is not set", fix="Name the file with the keystore's password."
        )
    return open_keystore(path, _read_file(password_file).rstrip("\r\n"))


def open_keystore(path: Path, password: str) -> Key:
    """The key in the V3 keystore at `path`. Raises BadKeystore."""
    return Key(_decrypt(path, _read_file(path), password))


def _decrypt(path: Path, text: str, password: str) -> bytes:
    """The 32 secret bytes of a V3 keystore, by eth-account. Raises BadKeystore."""
    account = load_eth_account().Account  # on first use: it takes a third of a second
    try:
        document = json.loads(text)
        # "crypto" is the standard; the earliest wallets wrote "Crypto".
        document.setdefault("crypto", document.get("Crypto"))
        if document["crypto"]["cipher"] != "aes-128-ctr":
            raise _not_v3(path)
        return bytes(account.decrypt(document, password))
    except ValueError as error:
        if "MAC mismatch" in str(error):
            raise BadKeystore(
                path=path, why="the password does not open it", fix="Correct the password file."
            ) from None
        raise _not_v3(path) from None
    except (AttributeError, KeyError, TypeError, NotImplementedError):
        raise _not_v3(path) from None


def _not_v3(path: Path) -> BadKeystore:
    """The BadKeystore to raise for a file that is not a V3 keystore."""
    return BadKeystore(path=path, why="it is not an Ethereum V3 keystore", fix="Give the JSON file of a V3 keystore.")


def _load_key_file(path: Path) -> Key:
    """The key of `SLUICE_KEY_FILE`: 64 hex digits in a file that its owner alone may read. Raises BadKeystore."""
    text = _read_file(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        raise BadKeystore(path=path, why=f"others may read it (mode {mode:o})", fix=f"Run: chmod 600 {path}")
    return _parse_key(text, path)


def _parse_key(text: str, place: Path | str) -> Key:
    """The key written in `text`.

    Raises BadKeystore, which names `place` (a file or a setting) and never shows the text.
    """
    try:
        return Key.from_hex(text)
    except BadInput as error:
        raise BadKeystore(path=place, why="it holds no private key", fix=str(error)) from None


def _read_file(path: Path) -> str:
    """The text of a file. Raises BadKeystore if it is absent, unreadable or not text."""
    try:
        return path.read_text()
    except FileNotFoundError:
        raise BadKeystore(
            path=path,
            why="it is absent (no such file or directory)",
            fix="Check the path and its permissions, or make a wallet with `sluice worker init`.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not text"
        raise BadKeystore(path=path, why=why.lower(), fix="Check the path and its permissions.") from None
