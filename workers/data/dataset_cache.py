"""Datasets that this machine keeps for later tasks.

    <cache>/<sha256>           whole and checked; a task that uses it has a second link to it
    <cache>/<sha256>.checked   its size, and since which start of the system it is known to be whole (`verified`)
    <cache>/<sha256>.<task>    being fetched

A file that was last checked before the system's last start is checked again before it is used: the power may have been
lost. One that differs is dropped and fetched anew; a task would vote for whatever it computes of it.

Used ones are never removed. Others go after CACHE_SECONDS without use, and earlier, least recently used first, beyond a
budget of bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from config.whole_files import move_whole
from workers.data import verified

log = structlog.get_logger(__name__)

#: Seconds without use after which a dataset goes: deals that share one mostly follow each other within a day.
CACHE_SECONDS = 24 * 3600.0
#: Seconds without a write after which a file that was being fetched is no longer: no download stalls for so long.
STALE_SECONDS = 3600.0
#: Suffix of the file that says when a dataset was checked.
_CHECKED = ".checked"


def provide(
    cached: Path,
    target: Path,
    fetch: Callable[[Path], object],
    mark: str,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Make `target` a hard link to the cached dataset `cached`, whose name is its checksum; `fetch` downloads it first
    if the cache lacks it. A `target` of an earlier attempt stays if it is whole.

    `mark`: makes the name of the file unique while it is downloaded. Without a lock: a task that names this checksum
    beside an address that never answers would hold the lock for ever. `meanwhile`: called while files are checked; what
    it raises ends that.
    """
    while True:
        if target.exists() or _linked(cached, target):
            if _is_whole(cached, target, meanwhile):
                return
            continue
        fresh = cached.with_name(f"{cached.name}.{mark}")
        fetch(fresh)
        size = fresh.stat().st_size
        move_whole(fresh, cached)
        verified.note(_note_of(cached), size)


def _is_whole(cached: Path, target: Path, meanwhile: Callable[[], object]) -> bool:
    """Whether `target` is the whole dataset. If not, `target` is removed, and so is the cached file if `target` is a
    link to it.
    """
    found = target.stat()
    if verified.is_noted(_note_of(cached), found.st_size) and _is_same(cached, found):
        return True
    if verified.sha256_of(target, meanwhile) == cached.name:
        if _is_same(cached, found):
            verified.note(_note_of(cached), found.st_size)
        return True
    log.warning("A dataset is not whole any more; it is fetched anew.", action="dataset_broken", dataset=cached.name)
    if _is_same(cached, found):
        remove(cached)
    target.unlink()
    return False


def _is_same(cached: Path, found: os.stat_result) -> bool:
    """Whether the cached file is still the one with the status `found`."""
    try:
        return os.path.samestat(cached.stat(), found)
    except FileNotFoundError:
        return False


def _note_of(cached: Path) -> Path:
    """The file that says when a dataset was checked."""
    return cached.with_name(cached.name + _CHECKED)


def remove(cached: Path) -> None:
    """Delete a file of the cache."""
    # In this order: a file without a note is checked.
    _note_of(cached).unlink(missing_ok=True)
    cached.unlink(missing_ok=True)


def _linked(cached: Path, target: Path) -> bool:
    """Link a cached dataset to `target` and mark it as used; whether it was there."""
    try:
        os.utime(cached)
        # The same bytes: the container sees its folder read-only and cannot change them.
        os.link(cached, target)
    except FileNotFoundError:
        # Never fetched, or removed just now as unused.
        return False
    return True


def unused(cache: Path, now: float) -> list[tuple[Path, os.stat_result]]:
    """Cached files to which no task has a link, least recently used first. `now`: Unix seconds."""
    found = [
        (path, stat)
        for path, stat in _files(cache)
        if stat.st_nlink == 1 and (stat.st_mtime < now - STALE_SECONDS or not _partial(path))
    ]
    return sorted(found, key=lambda each: each[1].st_mtime)


def _files(cache: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of the cache with what the file system says of them."""
    for path in cache.iterdir() if cache.exists() else ():
        if path.name.endswith(_CHECKED):
            continue
        # Gone already: a task, or another process that tidies, was faster.
        with suppress(FileNotFoundError):
            yield path, path.stat()


def _partial(path: Path) -> bool:
    """Whether a file of the cache is a download that is not finished."""
    return "." in path.name


def tidy(cache: Path, budget: int, now: float) -> list[str]:
    """Remove files unused for CACHE_SECONDS, then as many as it takes to stay within `budget` bytes. Returns their
    names.
    """
    total = sum(stat.st_size for _, stat in _files(cache))
    removed = []
    for path, stat in unused(cache, now):
        if total <= budget and stat.st_mtime > now - CACHE_SECONDS and not _partial(path):
            break
        remove(path)
        total -= stat.st_size
        removed.append(path.name)
    return removed
