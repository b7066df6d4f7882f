"""Files that are there whole or not at all, whoever is killed while writing them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file beside its place and move it there: a reader, or the next start, sees the old one or the new one.

    `mode`: permissions from the file's first moment on. Two that write at once each write a file of their own, and
    the last one's stays. On disk when this returns. Raises OSError, and leaves nothing behind then.
    """
    _put(path, content, mode, lambda partial: partial.replace(path))


def create_whole(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """The same, but a file that is there stays: of several processes that create it at once, the first wins."""

    def link(partial: Path) -> None:
        with suppress(FileExistsError):
            os.link(partial, path)

    _put(path, content, mode, link)


def _put(path: Path, content: str | bytes, mode: int, put: Callable[[Path], object]) -> None:
    partial = path.with_name(f"{path.name}.part-{secrets.token_hex(4)}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put(partial)
    finally:
        partial.unlink(missing_ok=True)
