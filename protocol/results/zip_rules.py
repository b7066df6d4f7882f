"""What the zip of a result may hold, so that it can be unpacked anywhere: the same for the worker that votes for it and
for the API that takes it. A worker must not vote for what the API then refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from protocol.results.computed import PATH_LEVELS

#: Files and folders at most: an app that writes more files should pack them itself.
ENTRIES: Final = 10_000
#: Characters in a path at most, far below what a file system takes, and bytes: the system opens paths of 4,096, and a
#: machine's own folders are part of that.
PATH_CHARACTERS: Final = 1_024
PATH_BYTES: Final = 3_072
#: Bytes of the zip's directory at most: ENTRIES with paths of 150 bytes.
DIRECTORY_BYTES: Final = 2 * 2**20
#: Bytes of an entry of the directory beside its path.
_ENTRY_BYTES: Final = 46
#: Bytes before each entry's content beside its path.
_LOCAL_BYTES: Final = 30 + 20
#: Deflate makes incompressible bytes longer by 5 in 16,383 at most.
_DEFLATE_SHARE: Final = 1_000
#: Windows reads this at the start of a path as the name of a disk.
_DRIVE: Final = re.compile("[A-Za-z]:")


def why_unfit(path: str) -> str | None:
    """Why no zip may hold this path (`/` between its parts), in words without the path; None if it may."""
    parts = path.split("/")
    if len(path) > PATH_CHARACTERS or len(parts) > PATH_LEVELS:
        return f"a path of more than {PATH_CHARACTERS} characters or {PATH_LEVELS} folders"
    if any("\ud800" <= character <= "\udfff" for character in path):
        # Python shows bytes that are not UTF-8 like this.
        return "a name that is no UTF-8"
    if len(path.encode()) > PATH_BYTES:
        return f"a path of more than {PATH_BYTES} bytes"
    if "\\" in path or "\0" in path or _DRIVE.match(path):
        return "a name that leads elsewhere on another system"
    if any(part in {"", ".", ".."} for part in parts):
        return "a path that leads out of its folder"
    return None


def directory_bytes(paths: Iterable[str]) -> int:
    """Bytes of the directory of a zip with these entries."""
    return sum(_ENTRY_BYTES + len(path.encode()) for path in paths)


def largest_zip(content_bytes: int) -> int:
    """Bytes that a zip of so many bytes of files has at most, if nothing in them can be compressed."""
    return content_bytes + content_bytes // _DEFLATE_SHARE + 2 * DIRECTORY_BYTES + ENTRIES * _LOCAL_BYTES
