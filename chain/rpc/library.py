"""Loading web3.py: once a process, on first use, with the one side effect of its import undone.

The import takes about a second and 55 MB, most of it cryptography that Sluice never calls (py_ecc's pairings). Commands
that ask no node therefore never load it; a service loads it in the parent process, whose children share the memory.
"""

from __future__ import annotations

import gc
import logging
import sys
from types import ModuleType


def load_web3() -> ModuleType:
    """The module `web3`. Its loggers stay silent below WARNING: at INFO they print node addresses, which hold keys."""
    limit = sys.getrecursionlimit()
    import web3  # noqa: PLC0415 # on first use, see above

    # py_ecc raises it to 100,000, at which a runaway recursion ends the process by a segmentation fault.
    sys.setrecursionlimit(limit)
    logging.getLogger("web3").setLevel(logging.WARNING)
    return web3


def preload_web3() -> None:
    """Load what every service uses of web3.py, in a parent that is about to fork: its children share the memory."""
    load_web3()
    import web3.providers.persistent  # noqa: PLC0415
    import web3.utils.subscriptions  # noqa: F401, PLC0415

    # Objects made so far are never collected: a child's first collection would copy every page that it marks.
    gc.collect()
    gc.freeze()
