"""`sluice config show`: `sluice settings` under the name by which other programs have it."""

from __future__ import annotations

import typer

from ops.commands.care.settings import show


def register(app: typer.Typer) -> None:
    """Add `sluice config …`."""
    group = typer.Typer(no_args_is_help=True, help="The settings; the same as `sluice settings`.")
    group.callback()(_group)
    group.command("show", epilog="Examples: `sluice config show`, `sluice config show --json`")(show)
    app.add_typer(group, name="config")


def _group() -> None:
    """The settings; the same as `sluice settings`."""
