"""Whether the pool runs a newer release than this machine."""

from __future__ import annotations

import re
from importlib.metadata import version

_NUMBERS = re.compile(r"\d{1,6}")
#: Numbers of a release that count: major, minor, patch.
_PARTS = 3


def upgrade_notice(pool: str, own: str | None = None) -> str | None:
    """A sentence for the operator if release `pool` is newer than `own` (default: this one's)."""
    own = own or version("sluice")
    if _numbers(pool) <= _numbers(own):
        return None
    # The pool's words are printed: only what a release is made of.
    name = "".join(re.findall(r"[\w.+-]", pool))[:32]
    return f"The pool runs Sluice {name} and this machine {own}: drain it (`sluice worker drain`), upgrade, start it."


def _numbers(release: str) -> tuple[int, ...]:
    """The numbers of a release, to compare."""
    found = [int(part) for part in _NUMBERS.findall(release)[:_PARTS]]
    # 1.0 is 1.0.0.
    return tuple(found + [0] * (_PARTS - len(found)))
