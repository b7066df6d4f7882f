"""`sluice settings`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from config.settings import settings
from config.values.sms_settings import SMS_PREFIX, sms_settings
from config.values.variables import PREFIX
from ops.settings_table import markdown, shown


def register(app: typer.Typer) -> None:
    """Add `sluice settings`."""
    app.command("settings", epilog="Examples: `sluice settings`, `sluice settings --json`")(show)


def show(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/settings.md.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every setting as this shell's environment gives it; secrets stay hidden, also those inside of URLs."""
    if as_markdown:
        print(markdown(), end="")
        return
    now, sms = settings(), sms_settings()
    values = shown(now) | shown(sms)
    if as_json:
        print(json.dumps(values, indent=1))
        return
    given = {
        f"{prefix}{name.upper()}" for prefix, one in ((PREFIX, now), (SMS_PREFIX, sms)) for name in one.model_fields_set
    }
    table = Table("variable", "value", "from", box=None)
    for name, value in values.items():
        table.add_row(name, "" if value is None else str(value), "environment" if name in given else "default")
    Console().print(table)
