"""Turns what a container left in its output folder, which is not trusted, into a digest and a zip.

The container has ended, so the folder does not change any more. Still every file is opened without following links;
links, pipes, sockets and devices are left out of the result (iExec Worker 9.2 follows links, but a link that resolves
on one machine may not on the next, so honest results have none).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import BadMessage, TaskDeclined, TaskFailure
from protocol.results import zip_rules
from protocol.results.computed import (
    COMPUTED_BYTES,
    COMPUTED_FILE,
    NAME_CHARACTERS,
    Computed,
    read_computed,
    result_digest,
)
from protocol.results.error_result import MACHINE_FAILED, Failure
from protocol.types import Hash32, Signature, TaskId
from workers.data.result_zip import ResultZip

CHUNK_BYTES = 2**18

#: No link is followed, and a pipe does not block.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ResultLimits:
    """The most a result may hold."""

    #: Bytes of all files together, before compression.
    total_bytes: int
    entries: int = zip_rules.ENTRIES
    #: The pool's own limit, where this machine takes less; what is between the two is declined.
    pool_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PackedResult:
    """A result ready to be voted for."""

    digest: Hash32
    callback_data: str | None
    #: By the task's enclave, if it has one.
    enclave_signature: Signature | None = None


@dataclass(frozen=True, slots=True)
class _Tree:
    """Paths below the output folder, sorted: regular files and folders (the empty path is the folder itself)."""

    files: tuple[str, ...]
    folders: tuple[str, ...]


def pack(task_id: TaskId, folder: Path, zip_path: Path, *, callback: bool, result_limits: ResultLimits) -> PackedResult:
    """Write all files of `folder` to a zip, and compute the result digest of what its computed.json points to.

    Raises TaskFailure, with a cause that is the same on every honest worker; TaskDeclined for a result that only this
    machine does not take.
    """
    tree = _walk(task_id, folder, result_limits)
    computed = _computed(task_id, folder, tree, callback=callback)
    sums = _zip(task_id, folder, tree, zip_path, result_limits)
    try:
        return PackedResult(result_digest(computed, sums, set(tree.folders)), computed.callback_data)
    except BadMessage as error:
        raise _failure(task_id, Failure.RESULT_DIGEST, str(error)) from error


def require_fit(task_id: TaskId, folder: Path, result_limits: ResultLimits) -> int:
    """Bytes of all files of `folder`. Raises as `pack` does for names, number and size of the files."""
    tree = _walk(task_id, folder, result_limits)
    size = sum((folder / path).lstat().st_size for path in tree.files)
    _require_size(task_id, size, result_limits)
    return size


def _failure(task_id: TaskId, failure: Failure, why: str) -> TaskFailure:
    """The failure of an app's output."""
    return TaskFailure(task=task_id, status=failure.status, cause=failure, why=why)


def _walk(task_id: TaskId, top: Path, result_limits: ResultLimits) -> _Tree:
    """Every regular file and folder; names are checked, links and special files passed over."""
    files: list[str] = []
    folders: list[str] = [""]
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(top / folder) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    folders.append(path)
                    waiting.append(path)
                elif len(entry.name) > NAME_CHARACTERS and (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                    raise _failure(
                        task_id, Failure.FILE_NAME, f"a file's name has more than {NAME_CHARACTERS} characters"
                    )
                elif stat.S_ISREG(mode):
                    files.append(path)
                if len(files) + len(folders) > result_limits.entries:
                    raise _failure(task_id, Failure.OUTPUT_ZIP, f"more than {result_limits.entries} files and folders")
                unfit = zip_rules.why_unfit(path)
                if unfit is not None:
                    raise _failure(task_id, Failure.OUTPUT_ZIP, unfit)
    if zip_rules.directory_bytes((*files, *folders)) > zip_rules.DIRECTORY_BYTES:
        raise _failure(task_id, Failure.OUTPUT_ZIP, f"paths of more than {zip_rules.DIRECTORY_BYTES} bytes together")
    return _Tree(tuple(sorted(files)), tuple(sorted(folders)))


def _computed(task_id: TaskId, folder: Path, tree: _Tree, *, callback: bool) -> Computed:
    """The app's computed.json. Raises TaskFailure if it is missing or wrong."""
    if COMPUTED_FILE not in tree.files:
        raise _failure(task_id, Failure.COMPUTED_FILE, "the app left no computed.json")
    handle = os.open(folder / COMPUTED_FILE, _OPEN_FLAGS)
    with os.fdopen(handle, "rb") as file:
        content = file.read(COMPUTED_BYTES + 1)
    try:
        return read_computed(content, callback=callback)
    except BadMessage as error:
        raise _failure(task_id, Failure.COMPUTED_FILE, str(error)) from error


def _zip(task_id: TaskId, folder: Path, tree: _Tree, zip_path: Path, result_limits: ResultLimits) -> dict[str, bytes]:
    """Write the zip; path → 32-byte sha256 of every file. One pass: each byte is read once."""
    sums: dict[str, bytes] = {}
    sizes = {path: (folder / path).lstat().st_size for path in tree.files}
    _require_size(task_id, sum(sizes.values()), result_limits)
    parents = {path.rpartition("/")[0] for path in (*tree.files, *tree.folders)}
    with ResultZip(zip_path) as target:
        for path in sorted(set(tree.folders) - parents - {""}):
            target.add_empty_folder(path)
        for path, size in sizes.items():
            digest = hashlib.sha256()
            with target.file(path, size) as write:
                for chunk in _chunks(task_id, folder / path, size):
                    digest.update(chunk)
                    write(chunk)
            sums[path] = digest.digest()
    return sums


def _require_size(task_id: TaskId, total: int, result_limits: ResultLimits) -> None:
    """Raise TaskFailure for more bytes than the pool takes, TaskDeclined for more than this machine does."""
    pool = result_limits.pool_bytes or result_limits.total_bytes
    if total > pool:
        raise _failure(task_id, Failure.OUTPUT_ZIP, f"more than {pool} bytes of results")
    if total > result_limits.total_bytes:
        why = f"more than {result_limits.total_bytes} bytes of results, the most that this machine takes"
        raise TaskDeclined(task=task_id, cause=MACHINE_FAILED, why=why)


def _chunks(task_id: TaskId, path: Path, size: int) -> Iterator[bytes]:
    """The content of a file of `size` bytes. Raises TaskDeclined if it has another size now: nothing of the app runs
    any more, so it is this machine that changes it.
    """
    left = size
    with os.fdopen(os.open(path, _OPEN_FLAGS), "rb") as file:
        while left >= 0 and (chunk := file.read(CHUNK_BYTES)):
            left -= len(chunk)
            yield chunk
    if left != 0:
        raise TaskDeclined(task=task_id, cause=MACHINE_FAILED, why="a file of the result changed while it was packed")


def write_into(folder: Path, name: str, content: bytes) -> None:
    """Put a file of ours into the output folder, replacing what the app may have left there under that name: even a
    link, which is removed, not followed. A folder of that name stays, and our file is left out.
    """
    target = folder / name
    if target.is_dir() and not target.is_symlink():
        return
    target.unlink(missing_ok=True)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as file:
        file.write(content)
