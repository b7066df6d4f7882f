"""Files that are there whole or not at all, whoever is killed while writing them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file beside its place and move it there: a reader, or the next start, sees the old one or the new one.

    `mode`: permissions from the file's first moment on. Two that write at once each write a file of their own, and
    the last one's stays. On disk when this returns. Raises OSError, and leaves nothing behind then.
    """
    _put(path, content, mode, lambda partial: partial.replace(path))


def create_whole(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a whole new file; one that is there stays: of several processes that create it at once, the first wins."""

    def link(partial: Path) -> None:
        with suppress(FileExistsError):
            os.link(partial, path)

    _put(path, content, mode, link)


@contextmanager
def new_file(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file to write at any length, which is at `path` once the block ends: whole, on disk, and never in the place of
    another one. Raises OSError (FileExistsError if there is one by then), and leaves nothing behind then, or if the
    block raises.
    """
    with _beside(path, mode, lambda partial: os.link(partial, path)) as file:
        yield file


def _put(path: Path, content: str | bytes, mode: int, put: Callable[[Path], object]) -> None:
    """Write a new file beside `path`, then have `put` move it into place."""
    with _beside(path, mode, put) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def _beside(path: Path, mode: int, put: Callable[[Path], object]) -> Iterator[BinaryIO]:
    """A new file beside `path` for the block; after it, `put` gets its path. Removed if the block fails."""
    partial = path.with_name(f"{path.name}.part-{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        put(partial)
    finally:
        partial.unlink(missing_ok=True)
