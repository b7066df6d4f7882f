"""`sluice backup`: what the chain does not give back, in one file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from config.settings import settings
from ops.admin import screen
from ops.admin.screen import DryRun, Json
from protocol.counts import count


def register(app: typer.Typer) -> None:
    """Add `sluice backup`."""
    app.command(
        "backup",
        epilog="Examples: `sluice backup pool.backup`, `sluice backup /srv/pool-$(date +%F).backup --keys --json`",
    )(_backup)


def _backup(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The new file; one that exists is not overwritten.")],
    keys: Annotated[
        bool,
        typer.Option("--keys", help="Also the keystore, the machines' token key and the operator's token."),
    ] = False,
    secrets: Annotated[
        bool, typer.Option("--secrets", help="Also the settings that are secret: passwords, addresses with keys.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Back up the scheduler's database at one moment, while it works: deals, tasks, machines, lists, transactions.

    One archive, readable by its owner only, there whole or not at all: a manifest (version, schema, chain, pool, block,
    counts, SHA-256) and the settings without secrets are in it; the keystore's password never is. Needs only MongoDB.
    `sluice restore` puts it back. Exit code 1 if MongoDB does not answer, 2 if the file cannot be written.
    """
    from ops.backup.take import preview, take  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    with console.status("Reading …") as line:
        if dry_run:
            made = preview(settings(), path, keys=keys)
        else:
            made = take(settings(), path, keys=keys, secrets=secrets, progress=line.update)
    block = "before the first block" if made.block is None else f"up to block {made.block}"
    would = "Would be written, before it is packed: " if dry_run else ""
    says = [f"{would}{made.path}: {count(made.documents, 'document')}, {block}, {count(made.bytes, 'byte')}."]
    if made.keys:
        says.append(f"With keys ({', '.join(made.keys)}): whoever has this file can act as the pool.")
    screen.show(asdict(made), "\n".join(says), as_json=as_json)
