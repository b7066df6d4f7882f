"""A program that waits for a signal for ever, for containers whose network is looked at from inside: an ELF file of
some 130 bytes that needs nothing of its image.
"""

from __future__ import annotations

import io
import struct
import tarfile
from typing import Final

#: An image of `archive`, which is made on an engine the first time.
IMAGE: Final = ("sluice/rehearsal", "1")
#: Path of the program in it.
PATH: Final = "sluice-rehearsal"
#: By Go's name of the processor: ELF machine number (ELF specification), and code that repeats one system call.
_CODE: Final = {
    # mov eax, 34 (pause); syscall; jmp to the beginning
    "amd64": (62, bytes.fromhex("b822000000 0f05 ebf7")),
    # x0 to x4 = 0; x8 = 73 (ppoll, without files and time limit); svc 0; b to the beginning
    "arm64": (
        183,
        struct.pack(
            "<8I", *(0xD2800000 + register for register in range(5)), 0xD2800000 | 73 << 5 | 8, 0xD4000001, 0x17FFFFF9
        ),
    ),
}
#: Where the file lies in memory, and sizes of the ELF header and of its one program header.
_BASE, _HEADER, _SEGMENT = 0x400000, 64, 56


def program(architecture: str) -> bytes | None:
    """The program for a processor, by Go's name; None for one that is not known here."""
    if architecture not in _CODE:
        return None
    machine, code = _CODE[architecture]
    start, size = _HEADER + _SEGMENT, _HEADER + _SEGMENT + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, machine, 1, _BASE + start, _HEADER, 0, 0, _HEADER, _SEGMENT, 1, 0, 0, 0
    )
    # One segment, readable and executable, the whole file.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def archive(architecture: str) -> bytes:
    """Tar archive of an image's files: the program, or nothing for a processor that is not known here."""
    content, made = program(architecture), io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        if content is not None:
            entry = tarfile.TarInfo(PATH)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()
