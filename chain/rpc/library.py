"""Loading web3.py: once a process, on first use, without what Sluice never calls, and silent.

The import takes a third of a second and 40 MB. Commands that ask no node therefore never load it; a service loads it in
the parent process, whose children share the memory.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from importlib import import_module
from types import ModuleType

from config.processes import collector
from protocol.ethereum.library import load_eth_account, stand_ins

#: What web3.py takes from aiohttp for its AsyncHTTPProvider, which Sluice never uses: it asks by `requests` and listens
#: by `websockets`. The import of aiohttp costs a tenth of a machine's start and 8 MB.
_STAND_INS: dict[str, dict[str, object]] = {
    "aiohttp": {
        "ClientError": type("ClientError", (Exception,), {}),
        **{name: type(name, (), {}) for name in ("ClientResponse", "ClientSession", "ClientTimeout", "TCPConnector")},
    }
}


def load_web3() -> ModuleType:
    """The module `web3`. Its loggers stay silent below WARNING: at INFO they print node addresses, which hold keys."""
    load_eth_account()
    with stand_ins(_STAND_INS), suppress(ImportError):
        import_module("web3")
    # Of a release that takes more from aiohttp, this is the usual import.
    web3 = import_module("web3")
    logging.getLogger("web3").setLevel(logging.WARNING)
    return web3


def preload_web3() -> None:
    """Load what every service uses of web3.py, in a parent that is about to fork: its children share the memory."""
    load_web3()
    import web3.providers.persistent  # noqa: PLC0415
    import web3.utils.subscriptions  # noqa: F401, PLC0415

    collector.settle()
