"""Random keys in a file that its owner alone can read, the newest in use, older ones kept as long as they are needed.

    {"keys": [{"id": "…", "made_at": <Unix seconds>, "secret": "<64 hex digits>"}, …]}      the newest first
                                                     "wrapped": "…" in place of it: by a service that keeps keys

All processes that share the file check at each use whether it has changed, so that a new key holds for all of them at
once. A file that is not JSON is one key as it stands: 32 random bytes, as older releases made it.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import structlog

from config.whole_files import create_whole, replace_whole
from protocol.errors import BadSetting, Unavailable

log = structlog.get_logger(__name__)

SECRET_BYTES = 32
#: Seconds until a key service that was away is asked again: each request may wait for it as long.
AGAIN_SECONDS = 20.0
#: Id of the key in a file of the old form.
OLD_ID = "0"


@dataclass(frozen=True)
class RingKey:
    """One key. `made_at`: Unix seconds; `secret`: SECRET_BYTES or more."""

    id: str
    made_at: float
    secret: bytes = field(repr=False)


class KeyWrapping(Protocol):
    """A service that encrypts keys with one that never leaves it (a KMS)."""

    def wrap(self, secret: bytes) -> str:
        """The wrapped key, as text for the file. Raises Unavailable."""

    def unwrap(self, wrapped: str) -> bytes:
        """The key that was wrapped into this text. Raises Unavailable."""


def derived(secret: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose, so that nothing made for one is valid for another."""
    return hmac.new(secret, purpose.encode(), hashlib.sha256).digest()


K = TypeVar("K", bound=RingKey)


class KeyFile(Generic[K]):
    """The keys in a file, read again whenever it has changed. Safe for several threads."""

    def __init__(
        self,
        path: Path,
        kind: Callable[[str, float, bytes], K],
        *,
        setting: str,
        fix: str,
        wrapping: KeyWrapping | None = None,
    ) -> None:
        """Makes the file if it is absent. `kind`: makes a key; `setting` names the file, `fix`: what to do about it;
        `wrapping`: of new keys, and of those in the file that are wrapped.

        Raises BadSetting if it holds no keys or others can read it, Unavailable as `wrapping` does.
        """
        self._path, self._kind, self._setting, self._fix = path, kind, setting, fix
        self._wrapping = wrapping
        #: Unwrapped keys by their wrapped text: each is unwrapped once, and kept when others change.
        self._unwrapped: dict[str, bytes] = {}
        #: When a key service that was away is asked again, by the process's own clock.
        self._again_at = 0.0
        self._guard = threading.Lock()
        self._known: tuple[tuple[int, int], tuple[K, ...]] | None = None
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            create_whole(path, self._written([self._new(time.time())]), mode=0o600)
        self.all()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path})"

    @property
    def newest(self) -> K:
        """The key in use."""
        return self.all()[0]

    def all(self) -> tuple[K, ...]:
        """Keys in the file, the newest first. What was read last is kept while the file cannot be read, or the key
        service is away.
        """
        known = self._known
        if known is not None and time.monotonic() < self._again_at:
            return known[1]
        try:
            found = self._path.stat()
        except OSError:
            if known is not None:
                return known[1]
            raise
        # Each change is a new file; the time alone may repeat within the kernel's tick.
        changed = (found.st_ino, found.st_mtime_ns)
        if known is not None and known[0] == changed:
            return known[1]
        # One thread reads: the others go on with what is known, as it may wait for the key service.
        if known is None:
            self._guard.acquire()
        elif not self._guard.acquire(blocking=False):
            return known[1]
        try:
            if self._known is None or self._known[0] != changed:
                self._known = (changed, self._read())
            return self._known[1]
        except (Unavailable, BadSetting, OSError) as error:
            if self._known is None:
                raise
            log.warning(
                "The key file cannot be read: the keys known before stay.", action="keys_unread", why=str(error)
            )
            self._again_at = time.monotonic() + AGAIN_SECONDS
            return self._known[1]
        finally:
            self._guard.release()

    def add(self, now: float, keep: Callable[[tuple[K, ...]], Sequence[K]]) -> tuple[K, list[K]]:
        """Add a key that is the newest from now on; returns it and the keys that were dropped.

        `keep`: which of the older ones stay.
        """
        with _locked(self._path):
            older = self._read()
            kept, new = keep(older), self._new(now)
            replace_whole(self._path, self._written([new, *kept]))
        return new, [key for key in older if key not in kept]

    def drop(self, gone: Callable[[K], bool]) -> list[K]:
        """Drop keys; returns them. The newest always stays."""
        with _locked(self._path):
            newest, *older = self._read()
            dropped = [key for key in older if gone(key)]
            if dropped:
                replace_whole(self._path, self._written([newest, *(key for key in older if key not in dropped)]))
        return dropped

    def _new(self, now: float) -> K:
        """A new random key, made at `now`."""
        return self._kind(secrets.token_hex(8), now, secrets.token_bytes(SECRET_BYTES))

    def _read(self) -> tuple[K, ...]:
        """The keys in the file; one of an earlier release holds a single secret and nothing else. Raises BadSetting."""
        path = self._path
        if path.stat().st_mode & 0o077:
            raise BadSetting(name=self._setting, why=f"{path} can be read by others", fix=f"Run chmod 600 {path}.")
        content = path.read_bytes()
        try:
            rows = json.loads(content)["keys"]
        except (ValueError, TypeError, KeyError):
            keys = [self._kind(OLD_ID, 0.0, content)]
        else:
            try:
                keys = [self._kind(str(row["id"]), float(row["made_at"]), self._secret(row)) for row in rows]
            except (ValueError, TypeError, KeyError) as error:
                raise BadSetting(
                    name=self._setting, why=f"{path} holds a key without id, made_at or secret", fix=self._fix
                ) from error
        if not keys or any(len(key.secret) < SECRET_BYTES for key in keys):
            raise BadSetting(name=self._setting, why=f"{path} holds fewer than {SECRET_BYTES} bytes", fix=self._fix)
        return tuple(keys)

    def _secret(self, row: Mapping[str, Any]) -> bytes:
        """The secret in a row of the file.

        Raises BadSetting, Unavailable; ValueError, TypeError, KeyError if the row has none.
        """
        if "wrapped" not in row:
            return bytes.fromhex(row["secret"])
        wrapped = str(row["wrapped"])
        if self._wrapping is None:
            why = f"{self._path} holds a key that a key service has wrapped, and none is set"
            raise BadSetting(name=self._setting, why=why, fix="Set the same key service as before.")
        if wrapped not in self._unwrapped:
            self._unwrapped[wrapped] = self._wrapping.unwrap(wrapped)
        return self._unwrapped[wrapped]

    def _written(self, keys: Sequence[RingKey]) -> bytes:
        """The file's content for these keys. Raises BadSetting if the key service does not wrap them."""
        rows = [{"id": key.id, "made_at": key.made_at, **self._stored(key.secret)} for key in keys]
        return json.dumps({"keys": rows}, indent=1).encode()

    def _stored(self, secret: bytes) -> dict[str, str]:
        """A secret as the file holds it: in hex, or wrapped by the key service. Raises BadSetting."""
        if self._wrapping is None:
            return {"secret": secret.hex()}
        # A copy: other threads may unwrap meanwhile.
        known = next((wrapped for wrapped, key in list(self._unwrapped.items()) if key == secret), None)
        wrapped = known or self._wrapping.wrap(secret)
        # A key that the service does not give back would lose what it encrypts; one that it prints is not protected.
        if known is None and (secret.hex() in wrapped or self._wrapping.unwrap(wrapped) != secret):
            why = "the key service does not wrap keys, or does not give back what it wrapped"
            raise BadSetting(name=self._setting, why=why, fix=self._fix)
        self._unwrapped[wrapped] = secret
        return {"wrapped": wrapped}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the ring's folder: a lock on the file itself would be on the one that is replaced."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
