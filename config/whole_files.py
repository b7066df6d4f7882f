"""Writes files that exist whole or not at all, even if the process is killed or the power fails."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a file beside its place and move it there: a reader, or the next start, sees the old one or the new one.

    `mode`: permissions from the file's first moment on. Two that write at once each write a file of their own, and
    the last one's stays. What root writes belongs to the owner of the file before, or of the folder: another user's
    process may be its reader. On disk when this returns. Raises OSError, and leaves nothing behind then.
    """
    _put(path, content, mode, lambda partial: partial.replace(path))


def replace_whole(
    path: Path, content: str | bytes, *, mode: int = 0o600, most: int | None = None, like: Path | None = None
) -> None:
    """`write_whole` that also keeps the permissions of the file before, and its owner whoever writes it.

    Of the permissions those in `most` stay (None: `mode`); a file that is new has `mode`. `like`: the file that will be
    replaced, if not `path` itself. Raises OSError (PermissionError if this user may not give files to that owner), and
    leaves nothing behind then.
    """
    before = path if like is None else like
    with _beside(path, 0o600, lambda partial: partial.replace(path)) as file:
        handle = file.fileno()
        try:
            found = before.stat()
        except FileNotFoundError:
            give_to_owner_of(before.parent, handle)
            os.fchmod(handle, mode)
        else:
            _give(handle, found)
            os.fchmod(handle, stat.S_IMODE(found.st_mode) & (mode if most is None else most))
        file.write(content.encode() if isinstance(content, str) else content)


def create_whole(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write a whole new file; one that is there stays: of several processes that create it at once, the first wins."""

    def link(partial: Path) -> None:
        """Give the written file its final name, unless another one has it."""
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


def give_to_owner_of(path: Path, handle: int) -> None:
    """Give an open file that root has made to the owner and group of `path`, a file or folder. Nothing for others."""
    if os.geteuid() == 0:
        _give(handle, path.stat())


def _put(path: Path, content: str | bytes, mode: int, put: Callable[[Path], object]) -> None:
    """Write a new file beside `path`, then have `put` move it into place."""
    with _beside(path, mode, put) as file:
        give_to_owner_of(path if path.exists() else path.parent, file.fileno())
        file.write(content.encode() if isinstance(content, str) else content)


def _give(handle: int, like: os.stat_result) -> None:
    """Give an open file to the owner and group of another one. Raises PermissionError."""
    own = os.fstat(handle)
    if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(handle, like.st_uid, like.st_gid)


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
