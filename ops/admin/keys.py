"""The keys that a scheduler made itself: lists them, and replaces them.

    tokens of machines     SLUICE_TOKEN_SECRET_FILE   the newest key signs, the former verifies for two hours more
    the operator's token   SLUICE_ADMIN_TOKEN_FILE    one at a time: the former is refused at once
    RabbitMQ's users       none here                  a machine's password is new at each sign-in (hourly), Flower's at
                                                      each of its starts

API processes see both files change, so nothing is restarted. A key that is not there is not replaced: with another
SLUICE_HOME than the scheduler's, the new one would sign nothing, and the leaked one would go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from config.operator_token import FILE_SETTING, new_token, require_token, token_file, token_of_environment
from config.settings import Settings
from config.whole_files import replace_whole
from pipeline.api.auth.secret import OVERLAP_SECONDS, KeyRing, Keys, token_secret_file
from protocol.errors import BadSetting

_TOKENS_END = "Every machine's token: each signs in again within its next ping, without losing work."
_ADMIN_ENDS = "The operator's token, at once: give the new one to laptops, proxies and scripts (SLUICE_ADMIN_TOKEN)."


@dataclass(frozen=True, slots=True)
class KeyShown:
    """A key that exists. Times in Unix seconds; `until`: when it ends by itself."""

    kind: str
    name: str
    made_at: float | None
    state: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was, or would be, replaced. `path`: its file; `key`: the new one's id; `becomes_invalid`: what, and when."""

    kind: str
    path: str
    key: str | None
    dropped: tuple[str, ...]
    becomes_invalid: tuple[str, ...]
    says: str
    dry_run: bool


def show(settings: Settings) -> list[KeyShown]:
    """Every key, the newest of each kind first; what is not made yet is left out. Raises BadSetting."""
    now = time.time()
    found = []
    if token_secret_file(settings).exists():
        ring = KeyRing.of(settings)
        keys = ring.all()
        ends = [None, *(newer.made_at + OVERLAP_SECONDS for newer, _ in pairwise(keys))]
        found += [_token_key(key, until, now) for key, until in zip(keys, ends, strict=True)]
    path = token_file(settings)
    if token_of_environment(settings) is not None:
        found.append(KeyShown("admin", "SLUICE_ADMIN_TOKEN", None, "of the environment: replace it there"))
    elif path.exists():
        require_token(path.read_text(errors="replace"), FILE_SETTING)
        found.append(KeyShown("admin", str(path), path.stat().st_mtime, "in use"))
    return found


def _token_key(key: Keys, until: float | None, now: float) -> KeyShown:
    """A key of the machines' tokens as `sluice keys ls` shows it. `until`: when it stops to verify."""
    state = "signs" if until is None else "verifies" if now < until else "ended"
    return KeyShown("tokens", key.id, key.made_at, state, until)


def rotate_tokens(settings: Settings, *, at_once: bool, dry_run: bool) -> Rotated:
    """A new key for machines' tokens. `at_once`: the former ones end now. Raises BadSetting, also if there is none."""
    now = time.time()
    path = require_there(token_secret_file(settings), "SLUICE_TOKEN_SECRET_FILE")
    ring = KeyRing.of(settings)
    newest = ring.newest.id
    new, dropped = (None, []) if dry_run else ring.rotate(now, at_once=at_once)
    ends = time.strftime("%H:%M UTC", time.gmtime(now + OVERLAP_SECONDS))
    invalid = _TOKENS_END if at_once else f"Tokens by the key {newest}, at {ends}: no machine notices."
    says = f"A key would be added to {path}." if new is None else f"Key {new.id} in {path} signs from now on."
    gone = tuple(key.id for key in dropped)
    return Rotated("tokens", str(path), None if new is None else new.id, gone, (invalid,), says, dry_run)


def rotate_admin(settings: Settings, *, at_once: bool, dry_run: bool) -> Rotated:
    """A new operator's token in its file; there is no overlap, so `at_once` changes nothing. Raises BadSetting, also
    if there is none.
    """
    del at_once
    if token_of_environment(settings) is not None:
        fix = "Replace it where it is set, or unset it, so that the API makes a file."
        raise BadSetting(name="SLUICE_ADMIN_TOKEN", why="the token is set there, and no file is read", fix=fix)
    path = require_there(token_file(settings), FILE_SETTING)
    if not dry_run:
        replace_whole(path, new_token())
    says = f"A new token {'would be' if dry_run else 'is'} in {path}."
    return Rotated("admin", str(path), None, (), (_ADMIN_ENDS,), says, dry_run)


def require_there(path: Path, setting: str) -> Path:
    """The whole path of a key file that a running service has made. Raises BadSetting if it is not there."""
    path = path.absolute()
    if not path.exists():
        why = f"there is no key to replace: {path} does not exist"
        fix = "Give the command on the machine of the service that uses the key, with its settings (SLUICE_HOME)."
        raise BadSetting(name=setting, why=why, fix=fix)
    return path


#: What can be replaced, by the word for it.
KINDS: dict[str, Callable[..., Rotated]] = {"tokens": rotate_tokens, "admin": rotate_admin}
