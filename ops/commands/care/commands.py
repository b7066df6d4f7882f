"""`sluice commands`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def register(app: typer.Typer) -> None:
    """Add `sluice commands`."""
    app.command("commands", epilog="Examples: `sluice commands`, `sluice commands --json`")(_commands)


def _commands(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/commands.md.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every command with what it takes."""
    from ops import cli  # noqa: PLC0415 # which imports this
    from ops.command_table import commands, markdown  # noqa: PLC0415

    every = cli.every_command()
    if as_markdown:
        print(markdown(every), end="")
        return
    if as_json:
        print(json.dumps([asdict(row) for row in commands(every)], indent=1))
        return
    table = Table("command", "what it does", box=None)
    for row in commands(every):
        table.add_row(row.name, row.about)
    Console().print(table)
