"""`sluice metrics`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from config.metrics import DECLARED
from ops.metrics_table import markdown


def register(app: typer.Typer) -> None:
    """Add `sluice metrics`."""
    app.command("metrics", epilog="Examples: `sluice metrics`, `sluice metrics --json`")(_metrics)


def _metrics(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/metrics.md.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the metrics that the operations port shows; their values are at `/metrics` there."""
    if as_markdown:
        print(markdown(), end="")
        return
    if as_json:
        print(json.dumps([asdict(metric) for metric in DECLARED], indent=1))
        return
    table = Table("metric", "kind", "labels", "meaning", box=None)
    for metric in DECLARED:
        table.add_row(metric.name, str(metric.kind), ", ".join(metric.labels), metric.about)
    Console().print(table)
