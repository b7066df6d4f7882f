"""One ZIP file whose last member, `manifest.json`, says what it is and names each other member with size and SHA-256.

Backups and support bundles are such files. Members are written and read piece by piece, whatever their size.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from config.whole_files import new_file
from protocol.errors import BadBackup, BadInput

MANIFEST = "manifest.json"
#: zlib's fastest: a third larger than its best, for a fifth of the time.
_LEVEL = 1
#: Bytes read at a time.
_PIECE = 1 << 20
#: Errors of zipfile for bytes that it cannot read (RuntimeError: "encrypted", or a method that it lacks).
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, KeyError, EOFError, OSError, ValueError, RuntimeError)
_DAMAGED = "Take another copy of it, or an older backup."


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive. `items`: documents or lines in it."""

    name: str
    items: int
    bytes: int
    sha256: str


@dataclass(slots=True)
class ArchiveWriter:
    """Adds members to an archive that is being made."""

    _zip: zipfile.ZipFile
    members: list[Member] = field(default_factory=list)

    def add(self, name: str, items: Iterable[bytes]) -> Member:
        """Write a member, which is `items` one after the other."""
        digest, size, count = hashlib.sha256(), 0, 0
        with self._zip.open(name, "w", force_zip64=True) as file:
            for item in items:
                file.write(item)
                digest.update(item)
                size, count = size + len(item), count + 1
        self.members.append(Member(name, count, size, digest.hexdigest()))
        return self.members[-1]


def require_new(path: Path) -> None:
    """Raise BadInput if there is a file at `path`."""
    if path.exists():
        raise BadInput(what=f"{path} exists, and is not overwritten: name another file.")


@contextmanager
def write_archive(path: Path, about: Mapping[str, object]) -> Iterator[ArchiveWriter]:
    """A new archive at `path`, mode 600, which is there whole once the block ends, or not at all.

    `about`: what the manifest says beside the members; it may still be changed in the block. Raises BadInput where
    there is a file already, or where none can be written.
    """
    require_new(path)
    try:
        with (
            new_file(path) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive,
        ):
            writer = ArchiveWriter(archive)
            yield writer
            manifest = {**about, "members": [asdict(member) for member in writer.members]}
            archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
    except OSError as error:
        raise BadInput(what=f"{path} cannot be written: {error.strerror or error}.") from error


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that is open for reading, and what its manifest says."""

    path: Path
    about: Mapping[str, Any]
    members: tuple[Member, ...]
    _zip: zipfile.ZipFile

    def pieces(self, member: Member) -> Iterator[bytes]:
        """The member's bytes. Raises BadBackup if they are not those that were written."""
        digest = hashlib.sha256()
        try:
            with self._zip.open(member.name) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    yield piece
        except _UNREADABLE as error:
            raise _damaged(self.path, f"{member.name} in it cannot be read") from error
        if digest.hexdigest() != member.sha256:
            raise _damaged(self.path, f"{member.name} in it is not what was written (SHA-256)")

    def check(self) -> None:
        """Read every member once. Raises BadBackup if one is damaged."""
        for member in self.members:
            for _ in self.pieces(member):
                continue


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The archive at `path`. Raises BadBackup if it is none, or is cut off."""
    if not path.is_file():
        raise BadBackup(path=path, why="there is no such file", fix="Name the file that `sluice backup` wrote.")
    try:
        opened = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise _damaged(path, "it is no archive of Sluice, or was cut off") from error
    with opened:
        try:
            about = json.loads(opened.read(MANIFEST))
            members = tuple(Member(**member) for member in about.pop("members"))
        except (*_UNREADABLE, TypeError, AttributeError) as error:
            raise _damaged(path, "it has no readable manifest") from error
        yield Archive(path, about, members, opened)


def _damaged(path: Path, why: str) -> BadBackup:
    """The error for a backup whose content is not what was written."""
    return BadBackup(path=path, why=why, fix=_DAMAGED)
