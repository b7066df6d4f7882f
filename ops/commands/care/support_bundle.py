"""`sluice support-bundle`: what somebody needs who helps, without a secret."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from config.settings import settings
from ops.admin import screen
from ops.admin.screen import DryRun, Json


def register(app: typer.Typer) -> None:
    """Add `sluice support-bundle`."""
    app.command(
        "support-bundle",
        epilog="Examples: `sluice support-bundle`, `docker compose logs scheduler | sluice support-bundle --log -`,"
        " `sluice support-bundle trouble.zip --log /var/log/sluice.log --json`, `sluice support-bundle --dry-run`",
    )(_support_bundle)


def _support_bundle(
    path: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="The new file. Default: sluice-support-TIME.zip here.")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option("--log", help="A log to put in beside those in SLUICE_HOME; - for standard input. Repeatable."),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put status, health, settings, versions, queues, last errors and the ends of logs into one archive.

    No secret is in it: those of the settings, of this shell and of the files that they name are cut out wherever they
    stand, and so are passwords, keys and tokens by their form. It holds wallets, ids, host names and addresses: look
    into it before you give it away. What does not answer is noted in its place. Exit code 2 if the file exists.
    """
    from ops.support.bundle import make, planned  # noqa: PLC0415

    place = path or Path(time.strftime("sluice-support-%Y%m%d-%H%M%SZ.zip", time.gmtime()))
    if dry_run:
        members = planned(settings(), place, log or [])
        says = f"Would write {place} with {', '.join(members)}. Nothing was written."
        screen.show({"path": str(place), "members": members, "done": False}, says, as_json=as_json)
        return
    with Console(stderr=True, highlight=False).status("Asking …"):
        members = make(settings(), place, log or [])
    answer = {"path": str(place), "bytes": place.stat().st_size, "members": members, "done": True}
    says = f"{place}: {', '.join(members)}.\nIts secrets are cut out; look into it before you give it away."
    screen.show(answer, says, as_json=as_json)
