"""`sluice routes`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def register(app: typer.Typer) -> None:
    """Add `sluice routes`."""
    app.command("routes", epilog="Examples: `sluice routes`, `sluice routes --json`")(_routes)


def _routes(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/http-api.md.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the HTTP routes of the public API and of the operations port."""
    from ops.http_table import markdown, routes  # noqa: PLC0415
    from pipeline.api.application import documents  # noqa: PLC0415 # the whole API: a second

    if as_markdown:
        print(markdown(*documents()), end="")
        return
    found = routes(*documents())
    if as_json:
        print(json.dumps([asdict(route) for route in found], indent=1))
        return
    table = Table("route", "for", "what it does", box=None)
    for route in found:
        table.add_row(f"{route.method} {route.path}", route.tag, route.about)
    Console(soft_wrap=True).print(table)
