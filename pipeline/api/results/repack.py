"""The zip that is stored: made anew, of what the vote covers.

    what came                        what is stored
    computed.json                    written anew, with its one key (as it came where the vote covers it too)
    files that the digest covers     as they are, in order of their names, with one fixed date
    stdout.txt, stderr.txt           in the folder `unproven`: what this one worker says that the app printed
    anything else                    dropped: other files, comments, bytes before and between entries, dates, modes

Names of files in a result folder, and what is in folders below it, are no part of PoCo's digest: the names are checked
for harm only, and the folders below are dropped.
"""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from protocol.results.computed import COMPUTED_FILE, OUTPUT_FOLDER

#: Files in which a worker puts what the app printed, where they are stored, and bytes of each at most.
PRINTED_FILES = ("stdout.txt", "stderr.txt")
UNPROVEN_FOLDER = "unproven"
PRINTED_BYTES = 2**20
#: The first day a zip can name.
DATE = (1980, 1, 1, 0, 0, 0)
#: zlib's own default: what an honest worker packs with.
LEVEL = 6
#: Content that was compressed to more than this share of its size is stored uncompressed: compressing only takes time.
WORTH_PACKING = 0.95
#: From here on a file needs the format's 64-bit extension, also if deflate makes it a little larger.
_ZIP64_BYTES = 2**30
_FILE = (stat.S_IFREG | 0o644) << 16
_FOLDER = (stat.S_IFDIR | 0o755) << 16 | 0x10


class Repacked:
    """A zip at `path`, written file by file; removed again after an exception."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        if error is not None:
            self._path.unlink(missing_ok=True)

    def add_computed(self, output_path: str) -> None:
        """Write computed.json with the one key that counts. `output_path`: below the output folder."""
        content = json.dumps({"deterministic-output-path": f"{OUTPUT_FOLDER}/{output_path}"}).encode()
        self._zip.writestr(_info(COMPUTED_FILE, _FILE), content, compress_type=zipfile.ZIP_DEFLATED)

    def add_folder(self, path: str) -> None:
        """Add a folder that no file implies."""
        self._zip.writestr(_info(f"{path}/", _FOLDER), b"")

    def copy(self, name: str, source: zipfile.ZipInfo, read: Callable[[int], bytes], chunk_bytes: int) -> None:
        """Copy a file of another zip. `read`: its next bytes, unpacked; empty at its end."""
        info = _info(name, _FILE)
        packs = source.compress_size < WORTH_PACKING * source.file_size
        info.compress_type = zipfile.ZIP_DEFLATED if packs else zipfile.ZIP_STORED
        with self._zip.open(info, "w", force_zip64=source.file_size >= _ZIP64_BYTES) as entry:
            while chunk := read(chunk_bytes):
                entry.write(chunk)


def _info(name: str, attributes: int) -> zipfile.ZipInfo:
    """The `ZipInfo` of a file or folder, the same on every machine. `attributes`: Unix mode and file type, as zips hold
    them.
    """
    info = zipfile.ZipInfo(name, DATE)
    info.external_attr = attributes
    # Unix, whatever this process runs on: the same bytes everywhere.
    info.create_system = 3
    return info
