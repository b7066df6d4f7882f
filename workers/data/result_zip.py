"""The zip a result travels in: the same bytes for the same files, written as a stream.

Entries in the order they are added, one fixed date, one mode, deflate at one level. The contracts never see the zip;
that every honest worker makes the same one keeps IPFS from holding it several times.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from config.whole_files import move_whole

#: The first day a zip can name.
DATE = (1980, 1, 1, 0, 0, 0)
#: Compression level: zlib's own default.
LEVEL = 6
#: `external_attr` holds the Unix mode in its upper half.
_FILE = (stat.S_IFREG | 0o644) << 16
#: From here on a file needs the format's 64-bit extension, also if deflate makes it a little larger.
_ZIP64_BYTES = 2**30
_FOLDER = (stat.S_IFDIR | 0o755) << 16 | 0x10


class ResultZip:
    """A zip at `path`, which appears only when complete and on disk: an exception leaves nothing behind."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".part")
        self._zip = zipfile.ZipFile(self._partial, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Writes the zip's directory, for which a full disk may have no place.
            self._zip.close()
            if error is None:
                move_whole(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    def add_empty_folder(self, path: str) -> None:
        """Add a folder that no file would imply."""
        info = zipfile.ZipInfo(path + "/", DATE)
        info.external_attr = _FOLDER
        self._zip.writestr(info, b"")

    @contextmanager
    def file(self, path: str, size: int) -> Iterator[Callable[[bytes], int]]:
        """Add a file of `size` bytes; yields what to write them with."""
        info = zipfile.ZipInfo(path, DATE)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = _FILE
        with self._zip.open(info, "w", force_zip64=size >= _ZIP64_BYTES) as entry:
            yield entry.write
