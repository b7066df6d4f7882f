"""What the server of `tests.integration.forged` imports before it forks: the collector then leaves it alone."""

from __future__ import annotations

from config.processes import collector

collector.relax()

from tests.integration import forged  # noqa: E402 # after the line above, for which this module is

__all__ = ["forged"]

collector.settle()
