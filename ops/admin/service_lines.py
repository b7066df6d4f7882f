"""`--json` of commands that run a service: its log lines, and the error that ends it, are JSON."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from config.settings import settings

JsonLines = Annotated[
    bool, typer.Option("--json", help="Log lines as JSON, whatever SLUICE_LOG_FORMAT says, and errors as JSON.")
]


def write_json_lines(as_json: bool) -> None:
    """Have this process, and those that it starts, log JSON."""
    if as_json:
        # A process reads its settings anew, so they are told by the environment.
        os.environ["SLUICE_LOG_FORMAT"] = "json"
        settings.cache_clear()
