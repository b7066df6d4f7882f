"""`sluice explain`: why a task, a deal or a machine does not go on."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from config.settings import settings
from config.values.types import ENS_NAME
from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import Json


def register(app: typer.Typer) -> None:
    """Add `sluice explain`."""
    app.command("explain", epilog="Examples: `sluice explain 0x12ab34`, `sluice explain 0xWALLET --json`")(_explain)


def _explain(
    anything: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Id of a task or a deal, the beginning of one, or a machine's wallet or its ENS name."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Say what a task or a deal waits for, until when, and why no machine takes it; or why a machine gets nothing.

    The answer comes from the same functions that decide.
    """
    if ENS_NAME.fullmatch(anything):
        from chain.contracts.ens_names import wallets_of  # noqa: PLC0415 # it loads web3.py, for a name only

        (anything,) = wallets_of(settings(), [anything])
    found = OperatorApi.open().explain(anything)
    lines = [Text(f"{found['kind']} {found['id']}"), *(Text(f"  {screen.printable(says)}") for says in found["says"])]
    screen.show(found, screen.stacked(*lines), as_json=as_json)
