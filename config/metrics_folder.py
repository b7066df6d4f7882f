"""Where the processes of one scheduler count together: a folder with files of each, which `/metrics` adds up.

prometheus_client decides at its import whether values live in files: `share` comes before `config.metrics`. It maps the
files into memory without asking for their room on the disk, so that a full disk would kill whoever counts (SIGBUS):
here each file has its room before it is used, or the process counts for itself, in memory.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

#: The library's own setting; children inherit it.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
#: Bytes of a file: some thousand series, several times as many as one process of ours has. The library doubles it.
FILE_BYTES = 1 << 20
#: The disk is full, or this user's share of it is used up.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def share(folder: Path) -> None:
    """Count in `folder`, unless the environment names one. Files of processes that are gone are deleted."""
    folder = Path(os.environ.setdefault(VARIABLE, str(folder.absolute())))
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*_*.db"):
        # <kind of metric>_<process id>.db
        if not Path("/proc", file.stem.rpartition("_")[2]).exists():
            file.unlink(missing_ok=True)
    _have_files_with_room()


def _have_files_with_room() -> None:
    """Have prometheus_client use files that are there in full."""
    # Only now: it has read VARIABLE.
    from prometheus_client import values  # noqa: PLC0415
    from prometheus_client.mmap_dict import MmapedDict  # noqa: PLC0415

    class FileWithRoom(MmapedDict):
        """The library's file of values, in the room that `with_room` has for it."""

        def __init__(self, filename: str, read_mode: bool = False) -> None:
            super().__init__(filename if read_mode else with_room(filename), read_mode)  # type: ignore[no-untyped-call]

    values.MmapedDict = FileWithRoom  # type: ignore[attr-defined] # it names no exports


def with_room(name: str) -> str:
    """The name of a file for values: this one, with all its bytes on the disk, or one in memory if it has no room."""
    try:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(handle, 0, FILE_BYTES)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        with suppress(OSError):
            Path(name).unlink()
        log.warning(
            "No room for a file of metrics: /metrics lacks what this process counts.",
            action="metrics_in_memory",
            file=name,
            why=error.strerror,
        )
        return f"/proc/self/fd/{os.memfd_create('metrics')}"
    return name
