"""Whether steps of a task may share a block: one answer for the lane, the decisions and the machines."""

from __future__ import annotations

from config.settings import Settings


def early_steps(settings: Settings) -> bool:
    """Whether a step may go out behind one that is not in a block yet. SLUICE_SPEND_DEPTH above 0 comes first."""
    return settings.state == "pending" and not settings.spend_depth
