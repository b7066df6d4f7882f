"""What the server of `tests.integration.forged` imports before it forks: the collector then leaves it alone."""

from __future__ import annotations

from chain.rpc.library import load_web3
from config.processes import collector

collector.relax()
# Before it is imported by its name, which takes longer.
load_web3()

from tests.integration import forged  # noqa: E402 # after the lines above, for which this module is

__all__ = ["forged"]

collector.settle()
