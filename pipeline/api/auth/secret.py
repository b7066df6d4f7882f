"""The API's secrets: a ring of random keys in a file, from which every token and challenge key is derived.

    {"keys": [{"id": "…", "made_at": <Unix seconds>, "secret": "<64 hex digits>"}, …]}      the newest first

The newest signs, all verify. All API processes of a pool share the file and look at each use whether it has changed,
so that a new key holds for all of them at once. Whoever reads it can sign in as any worker, so it is mode 600. A file
that is not JSON is one key as it stands: 32 random bytes, as older releases made it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from config.settings import Settings
from config.whole_files import create_whole, write_whole
from protocol.errors import BadSetting

SECRET_BYTES = 32
#: Seconds for which a key still verifies after a newer one was made: twice the hour that a token or a challenge lives.
OVERLAP_SECONDS = 7200.0
#: Id of the key in a file of the old form.
OLD_ID = "0"
_SETTING = "SLUICE_TOKEN_SECRET_FILE"


@dataclass(frozen=True)
class Keys:
    """One secret and the keys derived from it, one per purpose. `made_at`: Unix seconds."""

    id: str
    made_at: float
    secret: bytes = field(repr=False)

    @cached_property
    def token(self) -> bytes:
        """Signs the tokens of worker machines."""
        return derived(self.secret, "token")

    @cached_property
    def challenge(self) -> bytes:
        """Marks sign-in challenges as ours."""
        return derived(self.secret, "challenge")

    @cached_property
    def logs(self) -> bytes:
        """Makes the challenges of requesters that read logs."""
        return derived(self.secret, "logs")


def derived(secret: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose, so that nothing made for one is valid for another."""
    return hmac.new(secret, purpose.encode(), hashlib.sha256).digest()


class KeyRing:
    """The keys in a file, read again whenever it has changed. Safe for several threads."""

    def __init__(self, path: Path) -> None:
        """Makes the file if it is absent. Raises BadSetting if it holds no keys or others can read it."""
        self._path = path
        self._guard = threading.Lock()
        self._known: tuple[tuple[int, int], tuple[Keys, ...]] | None = None
        if not path.exists():
            _make(path, [_new_key(time.time())])
        self.all()

    @classmethod
    def of(cls, settings: Settings) -> KeyRing:
        """The ring of SLUICE_TOKEN_SECRET_FILE."""
        return cls(settings.token_secret_file or settings.home / "token.secret")

    def __repr__(self) -> str:
        return f"KeyRing({self._path})"

    @property
    def newest(self) -> Keys:
        """The key that signs."""
        return self.all()[0]

    def verifying(self, now: float) -> list[Keys]:
        """Keys that verify at `now` (Unix seconds), the newest first."""
        return _verifying(self.all(), now)

    def all(self) -> tuple[Keys, ...]:
        """Keys in the file, the newest first. What was read last is kept while the file is away."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            if self._known is not None:
                return self._known[1]
            raise
        # Each change is a new file; the time alone may repeat within the kernel's tick.
        changed = (found.st_ino, found.st_mtime_ns)
        with self._guard:
            if self._known is None or self._known[0] != changed:
                self._known = (changed, _read(self._path))
            return self._known[1]

    def rotate(self, now: float, *, at_once: bool = False) -> tuple[Keys, list[Keys]]:
        """Add a key that signs from now on; returns it and the keys that were dropped.

        Dropped are keys that had a newer one for OVERLAP_SECONDS: nothing they signed is valid any more. `at_once`:
        all the older ones, so that every machine signs in again.
        """
        with _locked(self._path):
            older = _read(self._path)
            kept = [] if at_once else _verifying(older, now)
            new = _new_key(now)
            write_whole(self._path, _written([new, *kept]), mode=0o600)
        return new, [key for key in older if key not in kept]


def _verifying(keys: tuple[Keys, ...], now: float) -> list[Keys]:
    """The newest, and those that have had a newer one for less than OVERLAP_SECONDS."""
    return [*keys[:1], *(key for newer, key in pairwise(keys) if now < newer.made_at + OVERLAP_SECONDS)]


def _new_key(now: float) -> Keys:
    return Keys(secrets.token_hex(8), now, secrets.token_bytes(SECRET_BYTES))


def _read(path: Path) -> tuple[Keys, ...]:
    if path.stat().st_mode & 0o077:
        raise BadSetting(name=_SETTING, why=f"{path} can be read by others", fix=f"Run chmod 600 {path}.")
    content = path.read_bytes()
    try:
        rows = json.loads(content)["keys"]
    except (ValueError, TypeError, KeyError):
        keys = [Keys(OLD_ID, 0.0, content)]
    else:
        try:
            keys = [Keys(str(row["id"]), float(row["made_at"]), bytes.fromhex(row["secret"])) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise BadSetting(
                name=_SETTING, why=f"{path} holds a key without id, made_at or secret", fix=_FIX
            ) from error
    if not keys or any(len(key.secret) < SECRET_BYTES for key in keys):
        raise BadSetting(name=_SETTING, why=f"{path} holds fewer than {SECRET_BYTES} bytes", fix=_FIX)
    return tuple(keys)


_FIX = "Delete it: the API makes a new one, and workers sign in again."


def _written(keys: list[Keys]) -> bytes:
    rows: list[dict[str, Any]] = [{"id": key.id, "made_at": key.made_at, "secret": key.secret.hex()} for key in keys]
    return json.dumps({"keys": rows}, indent=1).encode()


def _make(path: Path, keys: list[Keys]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    create_whole(path, _written(keys), mode=0o600)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the ring's folder: a lock on the file itself would be on the one that is replaced."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
