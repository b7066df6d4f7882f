"""Loading web3.py: once a process, on first use, without what Sluice never calls, and silent.

The import takes half a second and 50 MB. Commands that ask no node therefore never load it; a service loads it in the
parent process, whose children share the memory.
"""

from __future__ import annotations

import logging
from types import ModuleType

from config import collector
from protocol.ethereum.library import load_eth_account


def load_web3() -> ModuleType:
    """The module `web3`. Its loggers stay silent below WARNING: at INFO they print node addresses, which hold keys."""
    load_eth_account()
    import web3  # noqa: PLC0415 # on first use, see above

    logging.getLogger("web3").setLevel(logging.WARNING)
    return web3


def preload_web3() -> None:
    """Load what every service uses of web3.py, in a parent that is about to fork: its children share the memory."""
    load_web3()
    import web3.providers.persistent  # noqa: PLC0415
    import web3.utils.subscriptions  # noqa: F401, PLC0415

    collector.settle()
