"""Moments that this machine has stored, read by a clock that may have been set since. Pure.

A pause between two acts of one process goes by `time.monotonic`, which nobody sets; what must outlive the process is a
stored moment in Unix seconds.
"""

from __future__ import annotations


def is_older(moment: float, seconds: float, now: float) -> bool:
    """Whether a stored moment is at least `seconds` ago; `now` and `moment`: Unix seconds. A moment in the future was
    stored before the clock was set back: how long ago is unknown, so it counts as older.
    """
    return not 0 <= now - moment < seconds
