"""`sluice doctor`: `sluice scheduler doctor` in fewer words. A machine's is `sluice worker doctor`."""

from __future__ import annotations

import typer

from ops.commands.run.scheduler import doctor


def register(app: typer.Typer) -> None:
    """Add `sluice doctor`."""
    app.command(
        "doctor", epilog="Examples: `sluice doctor`, `sluice doctor --json`; of a machine: `sluice worker doctor`"
    )(doctor)
