"""Reads an untrusted result zip, recomputes its digest, and writes what that covers anew. No file is unpacked to disk.

end of the file, as we insist on it            why
...  central directory                         its size and entry count are checked before Python's zipfile reads it all
...  end record, 22 bytes, no comment          so that zipfile finds the very record that we checked
no 64-bit locator before it                    so that nothing overrides those numbers

Then every entry's name, kind, method and declared size is checked, and only the files that make up the digest are
decompressed, as a stream, each at most to its declared size.
"""

from __future__ import annotations

import errno
import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.api.results.repack import PRINTED_BYTES, PRINTED_FILES, UNPROVEN_FOLDER, Repacked
from protocol.enclave.result import CONTENT_FILE, KEY_FILE, why_unfit
from protocol.errors import BadMessage, StorageUnavailable
from protocol.results import zip_rules
from protocol.results.computed import COMPUTED_BYTES, COMPUTED_FILE, Computed, read_computed, result_digest
from protocol.types import Hash32

MAX_ENTRIES = zip_rules.ENTRIES
MAX_DIRECTORY_BYTES = zip_rules.DIRECTORY_BYTES
#: Bytes that all entries may unpack to, which bounds a requester's disk and our time (deflate packs 1000 to 1 at best).
MAX_UNPACKED_BYTES = 2 * 2**30
CHUNK_BYTES = 2**18
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE, _LOCATOR_SIGNATURE = b"PK\x05\x06", b"PK\x06\x07"
_LOCATOR_BYTES = 20
_ENCRYPTED = 0x1
#: What a result that only its beneficiary can read consists of.
ENCRYPTED_FILES = frozenset({KEY_FILE, CONTENT_FILE})
#: Errors of this machine's disk or limits, which say nothing about the zip.
_DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True, slots=True)
class CheckedResult:
    """What a zip proves: the digest of its files, and what its computed.json says. `computed`: None for an encrypted
    result, whose digest is its enclave's word.
    """

    digest: Hash32
    computed: Computed | None


def check_result(path: Path, *, callback: bool, max_unpacked: int = MAX_UNPACKED_BYTES) -> CheckedResult:
    """Recompute the digest of the zip at `path`. `callback`: whether the deal has one. Raises BadMessage."""
    with _opened(path) as archive:
        files, folders = _entries(archive, max_unpacked)
        if COMPUTED_FILE not in files:
            raise BadMessage(why=f"the zip has no {COMPUTED_FILE}")
        if files[COMPUTED_FILE].file_size > COMPUTED_BYTES:
            raise BadMessage(why=f"{COMPUTED_FILE} is larger than {COMPUTED_BYTES} bytes")
        computed = read_computed(b"".join(_content(archive, files[COMPUTED_FILE])), callback=callback)
        covered = _covered(files, computed)
        sums = {name: _sha256(archive, files[name]) for name in covered}
        return CheckedResult(result_digest(computed, sums, folders), computed)


def check_encrypted(path: Path, digest: Hash32, *, max_unpacked: int = MAX_UNPACKED_BYTES) -> CheckedResult:
    """Check that the zip at `path` has the form of an encrypted result, and nothing else. `digest`: what its enclave
    signed. Raises BadMessage.

    Whether it opens, and holds what the enclave signed, only its beneficiary can see.
    """
    with _opened(path) as archive:
        files, folders = _entries(archive, max_unpacked)
        if files.keys() != ENCRYPTED_FILES or folders != {""}:
            raise BadMessage(
                why=f"the deal wants its result encrypted: a zip of {' and '.join(sorted(ENCRYPTED_FILES))}"
            )
        unfit = why_unfit(files[KEY_FILE].file_size, files[CONTENT_FILE].file_size)
        if unfit is not None:
            raise BadMessage(why=f"the deal wants its result encrypted: {unfit}")
    return CheckedResult(digest, None)


def repack(path: Path, into: Path, checked: CheckedResult, *, max_unpacked: int = MAX_UNPACKED_BYTES) -> None:
    """Write what the vote covers of the zip at `path`, checked before, to `into`. Raises BadMessage."""
    if checked.computed is None:
        with _opened(path) as archive, Repacked(into) as target:
            for name in sorted(ENCRYPTED_FILES):
                with archive.open(name) as entry:
                    target.copy(name, archive.getinfo(name), entry.read, CHUNK_BYTES)
        return
    wanted = checked.computed.output_path
    if wanted is None:
        raise BadMessage(why="a result for a callback has no files")
    with _opened(path) as archive, Repacked(into) as target:
        files, _ = _entries(archive, max_unpacked)
        covered = _covered(files, checked.computed)
        if COMPUTED_FILE not in covered:
            target.add_computed(wanted)
        if not covered and wanted:
            target.add_folder(wanted)
        for name in covered:
            with archive.open(files[name]) as entry:
                target.copy(name, files[name], entry.read, CHUNK_BYTES)
        apart = {name: files[name] for name in PRINTED_FILES if name in files and name not in covered}
        for name, info in apart.items():
            # A result that has that folder's name keeps it.
            if info.file_size <= PRINTED_BYTES and wanted.partition("/")[0] != UNPROVEN_FOLDER:
                with archive.open(info) as entry:
                    target.copy(f"{UNPROVEN_FOLDER}/{name}", info, entry.read, CHUNK_BYTES)


def _covered(files: Mapping[str, zipfile.ZipInfo], computed: Computed) -> list[str]:
    """Names of the files whose bytes make up the digest, sorted."""
    wanted = computed.output_path
    return sorted(
        name for name in files if wanted is not None and (name == wanted or name.rpartition("/")[0] == wanted)
    )


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The open archive, for the block. What Python's zip reader finds wrong is raised as BadMessage, an error of the
    pool's disk as StorageUnavailable.
    """
    _check_end(path)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    # zipfile raises all of these on broken input, NotImplementedError on features it lacks.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
            raise StorageUnavailable(what="the pool's disk", why=str(error)) from error
        raise BadMessage(why=f"the zip is broken: {error}") from error


def _check_end(path: Path) -> None:
    """Raise BadMessage unless the file ends like a plain zip of a size that can be looked through."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END.size - _LOCATOR_BYTES))
        tail = file.read()
    if len(tail) < _END.size:
        raise BadMessage(why="the body is not a zip")
    signature, disk, first_disk, here, entries, directory, _, comment = _END.unpack(tail[-_END.size :])
    if signature != _END_SIGNATURE or comment != 0 or (disk, first_disk) != (0, 0) or here != entries:
        raise BadMessage(why="the body is not a plain zip (one part, no comment)")
    if tail[: -_END.size].startswith(_LOCATOR_SIGNATURE):
        raise BadMessage(why="the zip uses a 64-bit directory, which no result needs")
    if entries > MAX_ENTRIES or directory > MAX_DIRECTORY_BYTES:
        raise BadMessage(why=f"the zip has more than {MAX_ENTRIES} entries, or names that are too long")


def _entries(archive: zipfile.ZipFile, max_unpacked: int) -> tuple[dict[str, zipfile.ZipInfo], frozenset[str]]:
    """(regular files by path, paths of all folders, the root `""` included). Raises BadMessage for a harmful entry."""
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise BadMessage(why=f"the zip has more than {MAX_ENTRIES} entries")
    if sum(info.file_size for info in infos) > max_unpacked:
        raise BadMessage(why=f"the zip unpacks to more than {max_unpacked} bytes")
    files: dict[str, zipfile.ZipInfo] = {}
    folders = {""}
    for info in infos:
        name = _checked_name(info)
        if name in files:
            raise BadMessage(why="the zip has two entries of one name")
        if info.is_dir():
            folders.add(name)
        else:
            files[name] = info
        parent = name.rpartition("/")[0]
        while parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
        if len(files) + len(folders) > MAX_ENTRIES:
            raise BadMessage(why=f"the zip has more than {MAX_ENTRIES} files and folders")
    if folders & files.keys():
        raise BadMessage(why="the zip has a file and a folder of one name")
    return files, frozenset(folders)


def _checked_name(info: zipfile.ZipInfo) -> str:
    """The entry's path without a final slash, if the entry is harmless to unpack anywhere."""
    name = info.filename.removesuffix("/")
    # `orig_filename`: zipfile cuts `filename` at a NUL, other programs may not.
    unfit = "a name with a hidden end" if info.orig_filename != info.filename else zip_rules.why_unfit(name)
    if unfit is not None:
        raise BadMessage(why=f"the zip has an entry with {unfit}")
    if info.flag_bits & _ENCRYPTED or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise BadMessage(why="the zip has an entry that is neither stored nor deflated")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR} or ((kind == stat.S_IFDIR) != info.is_dir() and kind != 0):
        raise BadMessage(why="the zip has an entry that is neither a file nor a folder")
    return name


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The entry's bytes; zipfile stops at the declared size and checks the CRC there."""
    with archive.open(info) as entry:
        while chunk := entry.read(CHUNK_BYTES):
            yield chunk


def _sha256(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """SHA-256 of a file in the zip, unpacked piece by piece."""
    digest = hashlib.sha256()
    for chunk in _content(archive, info):
        digest.update(chunk)
    return digest.digest()
