"""Files that are there whole or not at all, whoever is killed while writing them, and after a loss of power."""

from __future__ import annotations

import errno
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


def move_whole(written: Path, path: Path) -> None:
    """Move a file that was written beside `path` to it. On disk when this returns. Raises OSError.

    First the bytes, then the name: after a loss of power a name that came first may stand for a file that was cut.
    """
    keep(written)
    written.replace(path)
    keep(path.parent)


def keep(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on disk. Raises OSError."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    except OSError as error:
        # Some file systems, as of networks, keep names at once and know no such call for a folder.
        if not path.is_dir() or error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(opened)


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
        keep(path.parent)
    finally:
        partial.unlink(missing_ok=True)
