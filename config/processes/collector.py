"""Settings of Python's garbage collector: rare runs while a process starts, since the objects of imports stay."""

from __future__ import annotations

import gc

#: New objects after which a starting process collects garbage. At Python's own 700, the imports' objects are traversed
#: again and again, which was a tenth of the CPU of a start.
STARTING = (20_000, 20, 100)
#: Python's own, for a process at work.
AT_WORK = (700, 10, 10)


def relax() -> None:
    """Raise the collector's thresholds: for the start of a process, and for one that ends soon."""
    gc.set_threshold(*STARTING)


def settle() -> None:
    """Freeze all objects made so far (`gc.freeze`) and set the thresholds back to Python's own.

    For a parent that is about to fork: a child's first collection would copy every page that it marks.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*AT_WORK)
