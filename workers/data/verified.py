"""Which files were checked since this machine was last switched on, so that they are not read as a whole each time.

A loss of power, or a crash of the system, can leave a file that was whole before cut short or full of zeros. Nothing
else does, so a file that was checked since the system's last start need not be read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from config.whole_files import write_whole

#: Linux's random id of the time since its start: a new one after each start. Containers see their host's.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Bytes that are read at a time.
_CHUNK_BYTES = 2**20


@cache
def this_boot() -> str | None:
    """The system's boot id: a new one after each start; None where the system has none."""
    try:
        return _BOOT_ID.read_text().strip() or None
    except OSError:
        return None


def note(about: Path, size: int = 0) -> None:
    """Record in the file `about` that something of `size` bytes is whole now."""
    if (boot := this_boot()) is not None:
        write_whole(about, f"{boot} {size}")


def is_noted(about: Path, size: int = 0) -> bool:
    """Whether the file `about` says that something of `size` bytes was whole since the system was started."""
    boot = this_boot()
    try:
        return boot is not None and about.read_text() == f"{boot} {size}"
    except (OSError, ValueError):
        return False


def sha256_of(path: Path, meanwhile: Callable[[], object]) -> str:
    """A file's SHA-256 as `0x` hex. `meanwhile` is called for every MiB; what it raises ends it. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            meanwhile()
    return "0x" + digest.hexdigest()
