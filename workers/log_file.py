"""The machine's own log file, for `sluice worker logs`: JSON lines, bounded in size.

worker.log ──full──► worker.log.1 ──► worker.log.2 ──► worker.log.3 ──► deleted

Every process of the machine appends to it. The process `upkeep` alone renames it when it is full, and the others begin
the new one by themselves.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from config.logging import also_to
from workers.data.layout import Layout

#: Bytes of a file at which the next one begins, and old ones kept: 64 MiB in all, some weeks of a busy machine.
MAX_BYTES, KEPT = 16 * 2**20, 3
#: Seconds between two reads while following.
FOLLOW_SECONDS = 0.3


def path_of(layout: Layout) -> Path:
    """Path of the machine's log file."""
    return layout.root / "log" / "worker.log"


def keep(layout: Layout) -> None:
    """Have this process and its children write their log to the log file too."""
    path = path_of(layout)
    path.parent.mkdir(exist_ok=True)
    also_to(path)


def rotate(layout: Layout, max_bytes: int = MAX_BYTES) -> None:
    """Begin a new log file if the present one has `max_bytes`; the oldest beyond KEPT is deleted."""
    path = path_of(layout)
    if not path.exists() or path.stat().st_size < max_bytes:
        return
    for number in range(KEPT, 0, -1):
        older = _numbered(path, number - 1)
        if older.exists():
            older.replace(_numbered(path, number))


def lines(layout: Layout, last: int, wanted: str = "", *, follow: bool = False) -> Iterator[str]:
    """The last `last` lines that contain `wanted`, oldest first; with `follow`, then each new one, without end."""
    path = path_of(layout)
    file = path.open(encoding="utf-8", errors="replace") if path.exists() else None
    try:
        found = deque[str](maxlen=last)
        for number in range(KEPT, 0, -1):
            found.extend(_matching(_numbered(path, number), wanted))
        if file is not None:
            found.extend(line.rstrip("\n") for line in file if wanted in line)
        yield from found
        while follow:
            fresh = file.readline() if file is not None else ""
            if fresh:
                if wanted in fresh:
                    yield fresh.rstrip("\n")
                continue
            time.sleep(FOLLOW_SECONDS)
            if path.exists() and (file is None or path.stat().st_ino != _inode(file)):
                if file is not None:
                    file.close()
                file = path.open(encoding="utf-8", errors="replace")
    finally:
        if file is not None:
            file.close()


def for_people(line: str) -> str:
    """A line as a person reads it: time, level, sentence, ids."""
    try:
        fields: dict[str, Any] = json.loads(line)
        said = [str(fields.pop("timestamp"))[:19].replace("T", " "), f"{fields.pop('level'):<7}", fields.pop("event")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return line
    trace = fields.pop("exception", None)
    ids = " ".join(f"{name}={value}" for name, value in fields.items() if name not in ("machine", "process"))
    return "  ".join([*said, ids]).rstrip() + (f"\n{trace}" if trace else "")


def _matching(path: Path, wanted: str) -> Iterator[str]:
    """The lines of a log file that hold the text."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line.rstrip("\n") for line in file if wanted in line)


def _numbered(path: Path, number: int) -> Path:
    """The log file of that age; 0 is the newest."""
    return path.with_name(f"{path.name}.{number}") if number else path


def _inode(file: TextIO) -> int:
    """The inode of a file, which tells it from another of the same name."""
    return os.fstat(file.fileno()).st_ino
