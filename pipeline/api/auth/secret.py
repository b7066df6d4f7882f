"""The API's one secret: 32 random bytes in a file, from which every token and challenge key is derived.

All API processes of a pool share the file; whoever reads it can sign in as any worker, so it is mode 600.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from config.settings import Settings
from protocol.errors import BadSetting

SECRET_BYTES = 32


def load_secret(settings: Settings) -> bytes:
    """The secret of SLUICE_TOKEN_SECRET_FILE, made if absent.

    Raises BadSetting if it is too short or readable by others.
    """
    path = settings.token_secret_file or settings.home / "token.secret"
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise BadSetting(
            name="SLUICE_TOKEN_SECRET_FILE", why=f"{path} can be read by others", fix=f"Run chmod 600 {path}."
        )
    secret = path.read_bytes()
    if len(secret) < SECRET_BYTES:
        raise BadSetting(
            name="SLUICE_TOKEN_SECRET_FILE",
            why=f"{path} holds fewer than {SECRET_BYTES} bytes",
            fix="Delete it: the API makes a new one, and workers sign in again.",
        )
    return secret


def derived(secret: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose, so that nothing made for one is valid for another."""
    return hmac.new(secret, purpose.encode(), hashlib.sha256).digest()


def _make(path: Path) -> None:
    """Write the file whole or not at all; of several processes that start at once, the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    finally:
        partial.unlink()
