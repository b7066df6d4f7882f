"""The files in a layer of an image, counted while it is measured: what the engine will make of its tar archive. Pure.

    sparse files (GNU's, by a header or by PAX records)     refused: 200 bytes become as many zeros as they say on disk
    content that begins as a compressed file does           refused: an engine unpacks it, whatever its manifest says
    entries                                                 counted: each takes an inode, and rounds up to a block

Engines unpack with Go's `archive/tar`, so headers are followed as it follows them. What it and this reader might take
differently is refused, since one of the two would look for the next header at another place. No builder of images
writes any of that.
"""

from __future__ import annotations

import re
from typing import Final

from protocol.errors import BadMessage

#: Files and folders of an image that this machine takes: large ones have some 500,000.
MOST_ENTRIES: Final = 2_000_000
#: Bytes that an entry takes on disk beside its content: of its last block, half on average, and its inode.
ENTRY_BYTES: Final = 4096
_BLOCK = 512
_NAME, _SIZE, _KIND = slice(0, 100), slice(124, 136), slice(156, 157)
#: Headers with records or a long name for the next one. Go reads as much of them.
_PAX, _PAX_GLOBAL, _LONG = b"x", b"g", (b"L", b"K")
_MOST_RECORDS = 2**20
_SPARSE = b"S"
#: Entries without content, whatever size they say.
_HEADER_ONLY = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
#: An old archive's file; it is a folder, without content, if its name ends with a slash.
_OLD_FILE = b"\0"
_OCTAL = re.compile(rb"[0-7]{1,21}")
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=]+)=")
_BINARY, _NEGATIVE = 0x80, 0x40
#: How gzip, bzip2, xz and zstd begin, and zstd's frames to skip. A tar archive begins with the name of a file.
_PACKED = re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ\0|\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")


class LayerEntries:
    """Reads a tar archive piece by piece; `count` is the number of its entries so far."""

    def __init__(self) -> None:
        self.count = 0
        self._header = bytearray()
        #: Content and padding to pass over before the next header.
        self._skip = 0
        #: Records or a long name that are being read, how much of them is left, and what kind they are.
        self._records, self._records_left, self._records_kind = bytearray(), 0, b""
        #: What they said of the next entry: its size, and whether its name ends with a slash.
        self._size: int | None = None
        self._slash = False
        self._zeros = 0
        self._begun = False

    def feed(self, piece: bytes) -> None:
        """Read the next piece. Raises BadMessage for an entry that would have other bytes on disk than in the archive,
        and for more than MOST_ENTRIES.
        """
        at, end = 0, len(piece)
        while at < end and self._zeros < 2:
            if self._records_left:
                taken = piece[at : at + self._records_left]
                self._records += taken
                at, self._records_left = at + len(taken), self._records_left - len(taken)
                if not self._records_left:
                    self._read_records()
            elif self._skip:
                step = min(self._skip, end - at)
                at, self._skip = at + step, self._skip - step
            else:
                taken = piece[at : at + _BLOCK - len(self._header)]
                self._header += taken
                at += len(taken)
                if len(self._header) == _BLOCK:
                    header = bytes(self._header)
                    self._header.clear()
                    self._read_header(header)

    def end(self) -> None:
        """Call after the last piece. Raises BadMessage if the last header was cut."""
        if self._header:
            raise BadMessage(why="a layer of the image ends within a header")

    def _read_header(self, header: bytes) -> None:
        """Take in one header block of the tar archive. Raises BadMessage."""
        if not self._begun and _PACKED.match(header):
            raise BadMessage(why="a layer of the image is packed in another way than its manifest says")
        self._begun = True
        if not any(header):
            self._zeros += 1
            return
        if self._zeros:
            raise BadMessage(why="a layer of the image goes on after its end")
        kind, size = header[_KIND], _number(header[_SIZE])
        if kind in {_PAX, _PAX_GLOBAL, *_LONG}:
            if size > _MOST_RECORDS:
                raise BadMessage(why=f"a layer of the image has records of more than {_MOST_RECORDS} bytes")
            self._records.clear()
            self._records_left, self._records_kind, self._skip = size, kind, -size % _BLOCK
            if kind in {_PAX, _PAX_GLOBAL}:
                # Those before count no more.
                self._size, self._slash = None, False
            return
        if kind == _SPARSE:
            raise BadMessage(why="a layer of the image holds a sparse file")
        self.count += 1
        if self.count > MOST_ENTRIES:
            raise BadMessage(why=f"a layer of the image has more than {MOST_ENTRIES} files")
        size = size if self._size is None else self._size
        name = header[_NAME].partition(b"\0")[0]
        if kind == _OLD_FILE and size and (self._slash or not name or name.endswith(b"/")):
            raise BadMessage(why="a layer of the image holds a folder with content")
        content = 0 if kind in _HEADER_ONLY else size
        self._skip = content + -content % _BLOCK
        self._size, self._slash = None, False

    def _read_records(self) -> None:
        """Take in the records that go before an entry (PAX, GNU long names). Raises BadMessage."""
        if self._records_kind in _LONG:
            self._slash |= self._records.partition(b"\0")[0].endswith(b"/")
            return
        left = bytes(self._records)
        while left:
            found = _RECORD.match(left)
            length = int(found[1]) if found else 0
            if found is None or not found.end() < length <= len(left) or left[length - 1 : length] != b"\n":
                raise BadMessage(why="a layer of the image holds records that cannot be read")
            key, value = found[2], left[found.end() : length - 1]
            if key.startswith(b"GNU.sparse."):
                raise BadMessage(why="a layer of the image holds a sparse file")
            if self._records_kind == _PAX:
                self._note(key, value)
            left = left[length:]

    def _note(self, key: bytes, value: bytes) -> None:
        """Take in one record: the entry's size or path. Raises BadMessage."""
        if key == b"size" and value:
            if not value.isdigit() or len(value) > 18:
                raise BadMessage(why="a layer of the image holds a size that is no number")
            self._size = int(value)
        elif key == b"path":
            self._slash |= value.endswith(b"/")


def _number(field: bytes) -> int:
    """A size in a header: octal digits, or binary. Raises BadMessage."""
    if field[0] & _BINARY:
        number = int.from_bytes(bytes([field[0] & ~_BINARY]) + field[1:])
        if field[0] & _NEGATIVE or number >> 63:
            raise BadMessage(why="a layer of the image holds a size that is no number")
        return number
    digits = field.strip(b" \0")
    if digits and _OCTAL.fullmatch(digits) is None:
        raise BadMessage(why="a layer of the image holds a size that is no number")
    return int(digits or b"0", 8)
