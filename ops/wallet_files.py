"""New wallets: a keystore and the file with its password, for their owner's eyes only, and never over another file."""

from __future__ import annotations

import json
import secrets
import stat
from pathlib import Path

from config.whole_files import new_file
from protocol.errors import BadKeystore
from protocol.ethereum.library import load_eth_account
from protocol.ethereum.signing import Key
from protocol.types import Wallet

#: Where a new wallet goes unless another place is named.
KEYSTORE, PASSWORD_FILE = Path("wallet.json"), Path("wallet.password")
#: Random bytes of a new password: as hard to guess as the key that it protects.
_PASSWORD_BYTES = 32


def make_wallet(keystore: Path, password_file: Path) -> Wallet:
    """Write a V3 keystore of a new key, mode 600, and its password unless that file exists. Never overwrites.

    Raises BadKeystore where there is a wallet already, or where a file cannot be written.
    """
    refuse_existing(keystore)
    password = password_in(password_file)
    secret = secrets.token_bytes(32)
    document = load_eth_account().Account.encrypt(secret, password)
    write_new(keystore, json.dumps(document))
    return Key(secret).wallet


def refuse_existing(keystore: Path) -> None:
    """Raise BadKeystore where there is a wallet already."""
    if keystore.exists():
        raise BadKeystore(
            path=keystore,
            why="it exists, and a wallet is never overwritten",
            fix="Use it, or name another file with --keystore.",
        )


def password_in(path: Path) -> str:
    """The password in the file, or a new one in a new file. Raises BadKeystore."""
    if not path.exists():
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        write_new(path, password + "\n")
        return password
    try:
        password, mode = path.read_text().rstrip("\r\n"), stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise BadKeystore(path=path, why="the password cannot be read", fix="Check its permissions.") from error
    if not password:
        raise BadKeystore(path=path, why="the password is empty", fix="Write one, or remove the file.")
    if mode & 0o077:
        raise BadKeystore(path=path, why=f"others may read it (mode {mode:o})", fix=f"Run: chmod 600 {path}")
    return password


def write_new(path: Path, text: str) -> None:
    """Write a file that is new, whole, and its owner's alone from the first moment on. Raises BadKeystore."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        why = error.strerror or str(error)
        raise BadKeystore(path=path, why=f"it cannot be written: {why}", fix="Name another place.") from error
