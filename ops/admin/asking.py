"""Asks the operator before an action that costs something; `--yes` answers beforehand, and `--json` needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from protocol.errors import BadInput

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def require_yes(*, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Raise BadInput if a question is needed (no `--yes`) and cannot be asked (`--json`)."""
    if as_json and not yes and not dry_run:
        raise BadInput(what="With --json nobody is asked: add --yes, or --dry-run.")


def confirm(question: str, *, yes: bool) -> None:
    """Ask on standard error, unless `yes`. Ends the command with exit code 1 if the answer is no."""
    if not yes and not typer.confirm(question, err=True):
        raise typer.Exit(1)
