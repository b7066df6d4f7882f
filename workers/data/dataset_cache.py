"""Datasets that this machine keeps for later tasks.

    <cache>/<sha256>          whole and checked; a task that uses it has a second link to it
    <cache>/<sha256>.<task>   being fetched

Used ones are never removed. Others go after CACHE_SECONDS without use, and earlier, least recently used first, beyond a
budget of bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

#: Seconds without use after which a dataset goes: deals that share one mostly follow each other within a day.
CACHE_SECONDS = 24 * 3600.0
#: Seconds without a write after which a file that was being fetched is no longer: no download stalls for so long.
STALE_SECONDS = 3600.0


def provide(cached: Path, target: Path, fetch: Callable[[Path], object], mark: str) -> None:
    """Make `target` a hard link to the cached dataset `cached`; `fetch` downloads the dataset first if the cache lacks
    it.

    `mark`: makes the name of the file unique while it is downloaded. Without a lock: a task that names this checksum
    beside an address that never answers would hold the lock for ever.
    """
    while not _linked(cached, target):
        fresh = cached.with_name(f"{cached.name}.{mark}")
        fetch(fresh)
        fresh.replace(cached)


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
        path.unlink(missing_ok=True)
        total -= stat.st_size
        removed.append(path.name)
    return removed
