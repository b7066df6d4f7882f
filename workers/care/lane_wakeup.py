"""Wakes the machine's lane: a named pipe to which any process of the machine writes a byte, and which `upkeep` reads.

intent stored in the lane's file ──► byte ──► `upkeep` runs the lane       (a fraction of a millisecond)
new head with open intents       ──► byte ──► the same

A byte that nobody reads is lost without harm: the intent is in the file, and the next head finds it there, or the next
ping of a machine that follows no heads. Bytes that wait together make one run.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: No pipe or no reader (the process `upkeep` is starting again), or a pipe full of wake-ups.
_NO_READER = frozenset({errno.ENOENT, errno.ENXIO, errno.EPIPE, errno.EAGAIN})
#: Bytes that a pipe holds on Linux.
_PIPE_BYTES = 65536


class LaneWakeup:
    """The pipe at `path`. It stays there when a process is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def notify(self) -> None:
        """Wake the process that runs the lane. Never waits."""
        try:
            pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(pipe, b"\0")
            finally:
                os.close(pipe)
        except OSError as error:
            if error.errno not in _NO_READER:
                raise

    @contextmanager
    def listen(self) -> Iterator[LaneListener]:
        """Read the pipe, made if absent. For one process."""
        if not self._path.is_fifo():
            self._path.unlink(missing_ok=True)
            os.mkfifo(self._path, 0o600)
        # Open for writing too: else it would be at its end whenever no other process has it open.
        pipe = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield LaneListener(pipe)
        finally:
            os.close(pipe)


class LaneListener:
    """The reading end."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a wake-up, at most `timeout` seconds; returns whether one came. Takes all that are pending."""
        ready, _, _ = select.select([self._pipe], [], [], timeout)
        if ready:
            os.read(self._pipe, _PIPE_BYTES)
        return bool(ready)
