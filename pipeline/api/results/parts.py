"""What has arrived of results whose upload was cut, one file per wallet and task, so that it goes on from there.

    <task>.<wallet>.<sha256 of the whole zip>.part      locked (flock) while a request writes it

The file is removed once its zip is stored or refused, an hour after its last byte, when its wallet or the pool has too
many, and when the disk is nearly full. The API processes of one machine share them; another machine has none.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from pipeline.api.results.upload_turns import PER_WALLET
from protocol.errors import BadInput, TooSlow, UnderWay, WrongOffset
from protocol.results.resumed_upload import Rest
from protocol.types import TaskId, Wallet

log = structlog.get_logger(__name__)

#: Seconds without a further byte that a part is kept.
KEPT_SECONDS = 3600.0
#: Parts in all: 64 of the largest results are 17 GB.
MOST_PARTS = 64
#: Seconds between two searches for parts that are too old.
TIDY_SECONDS = 300.0
_SUFFIX = ".part"


def bytes_held(folder: Path, task_id: TaskId, wallet: Wallet, sha256: str) -> int:
    """Bytes that are here of a wallet's zip with this sha256; 0 if none. A request that sends more now is not waited
    for.
    """
    # Without the lock: who only asks must not have an upload refused.
    try:
        return _path(folder, task_id, wallet, sha256).stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def part_of(folder: Path, task_id: TaskId, wallet: Wallet, rest: Rest) -> Iterator[Path]:
    """Open the file to which one upload request appends, from byte `rest.first` on; other requests are kept out
    meanwhile.

    The file stays if the body was cut or the pool could not store the result, so that the next request can go on. It is
    removed once the result is stored or refused. Raises UnderWay if another request has the file, WrongOffset if the
    file has fewer than `rest.first` bytes.
    """
    path = _path(folder, task_id, wallet, rest.sha256)
    if not all(_remove_unlocked(other) for other in _parts(folder, f"{task_id}.{wallet}.*") if other != path):
        raise UnderWay(what="An upload of this result", why="this wallet sends another zip for it")
    for mine, most in ((f"*.{wallet}.*", PER_WALLET), ("*", MOST_PARTS)):
        _remove_oldest((it for it in _parts(folder, mine) if it != path), most - 1)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, path)
        try:
            _check_offset(rest, os.fstat(descriptor).st_size)
            yield path
        except BaseException as error:
            if not _stays(error) or not os.fstat(descriptor).st_size:
                path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def check_whole(path: Path, rest: Rest) -> None:
    """Raise WrongOffset unless `path` has all bytes of the declared zip, and its sha256."""
    held = path.stat().st_size
    if held != rest.total:
        raise WrongOffset(held=held, why=f"the zip has {rest.total} bytes")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != rest.sha256:
            raise WrongOffset(held=0, why="what came has not the declared sha256 and is dropped")


def remove_parts(folder: Path, task_id: TaskId, wallet: Wallet) -> None:
    """Remove the parts of a wallet's result for a task, once it needs no upload any more; one that a request has now
    stays.
    """
    for path in _parts(folder, f"{task_id}.{wallet}.*"):
        _remove_unlocked(path)


def remove_all_idle(folder: Path) -> None:
    """Remove every part that no request has now, because the disk is nearly full."""
    for path in _parts(folder):
        _remove_unlocked(path)


def remove_old(folder: Path, now: float) -> None:
    """Remove the parts that had no byte for KEPT_SECONDS, and the files of requests that ended with their process.

    A younger file may be another API process's, under way. `now`: Unix seconds.
    """
    for path in _parts(folder):
        if _written_at(path) < now - KEPT_SECONDS:
            _remove_unlocked(path)
    for path in folder.glob("*.zip"):
        if _written_at(path) < now - KEPT_SECONDS:
            path.unlink(missing_ok=True)


async def remove_old_always(folder: Path, clock: Callable[[], float]) -> None:
    """Remove parts as they get too old, until cancelled."""
    while True:
        try:
            remove_old(folder, clock())
        except OSError as error:
            log.warning("Old parts of uploads could not be removed.", action="parts_not_removed", why=str(error))
        await asyncio.sleep(TIDY_SECONDS)


def _check_offset(rest: Rest, held: int) -> None:
    """Raise WrongOffset if the rest of a zip begins behind what is here of it."""
    if rest.first > held:
        raise WrongOffset(held=held, why=f"no more is here of the zip, so it cannot go on at {rest.first}")


def _stays(error: BaseException) -> bool:
    """Whether the upload can be resumed after this error: the connection was cut, or the pool could not store it."""
    if isinstance(error, TooSlow):
        return True
    if isinstance(error, WrongOffset):
        return bool(error.fields["held"])
    # An OSError is this disk's: it needs the space.
    return not isinstance(error, BadInput | OSError)


def _path(folder: Path, task_id: TaskId, wallet: Wallet, sha256: str) -> Path:
    """The file with the part of a zip that has come so far."""
    return folder / f"{task_id}.{wallet}.{sha256}{_SUFFIX}"


def _parts(folder: Path, those: str = "*") -> list[Path]:
    """The files with parts of zips, of all tasks or of those whose name fits."""
    return list(folder.glob(those + _SUFFIX))


def _written_at(path: Path) -> float:
    """When its last byte came; now for one that another request has just removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _remove_oldest(paths: Iterable[Path], most: int) -> None:
    """Remove the oldest of them, so that no more than `most` stay besides those under way."""
    newest_first = sorted(paths, key=_written_at, reverse=True)
    for path in newest_first[most:]:
        _remove_unlocked(path)


def _remove_unlocked(path: Path) -> bool:
    """Remove a part; False, and it stays, if a request has it now."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        _lock(descriptor, path)
        path.unlink(missing_ok=True)
    except UnderWay:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock(descriptor: int, path: Path) -> None:
    """Lock an open part until it is closed. Raises UnderWay if another request has it, or has just removed it."""
    why = "another request has what came so far"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError) as error:
        raise UnderWay(what="An upload of this result", why=why) from error
    if not same:
        raise UnderWay(what="An upload of this result", why=why)
