"""`sluice restore`: a backup in the place of the scheduler's database."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from config.settings import settings
from ops.admin import screen
from ops.admin.screen import DryRun, Json, age
from protocol.counts import count


def register(app: typer.Typer) -> None:
    """Add `sluice restore`."""
    app.command(
        "restore",
        epilog="Examples: `sluice restore pool.backup --dry-run`, `sluice restore pool.backup --replace --keys --json`",
    )(_restore)


def _restore(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file that `sluice backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Also if the database holds something, which is lost then.")
    ] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="Also write the backup's key files where the settings have them.")
    ] = False,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, help="Seconds for transactions of the lost scheduler to get into a block."),
    ] = 60.0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put a backup in the place of the scheduler's database. Stop the scheduler first; start it afterwards.

    Everything is checked before anything is changed: every byte, the release, the pool, the node's chain. What happened
    on chain since the backup is read again when the scheduler starts. Exit code 2 if the backup does not fit or the
    database is not empty, 1 if MongoDB or the node does not answer.
    """
    from ops.backup.put_back import put_back  # noqa: PLC0415

    with Console(stderr=True, highlight=False).status("Checking …") as line:
        done = put_back(settings(), path, replace=replace, keys=keys, dry_run=dry_run, wait=wait, progress=line.update)
    old = age(screen.clock() - done.made_at)
    block = "before the first block" if done.block is None else f"up to block {done.block}"
    what = f"{count(done.documents, 'document')} of {count(done.collections, 'collection')}, {block}, {old} old"
    says = [f"Would be restored: {what}. Nothing was changed." if dry_run else f"Restored: {what}."]
    says += [f"{'Would be written' if dry_run else 'Written'}: {place}" for place in done.keys]
    if done.keys_left:
        says.append(
            f"Not written: {', '.join(done.keys_left)}, since SLUICE_KEYSTORE names no place for it. It stays in"
            " `keys` of the backup, which is a ZIP archive."
        )
    if done.transfer_given_up:
        says.append("A deposit or withdrawal was under way: it is not sent again. See `sluice stake show`.")
    if done.orders_held:
        says.append(
            "Orders may have been signed since, which this backup does not know: nothing new is offered. Cancel at the"
            " market what it still lists, then give `sluice orders publish`."
        )
    if done.pending:
        says.append(
            f"Transactions of the wallet in no block yet: {done.pending}; `sluice tx ls` tells if one is in the way."
        )
    if not dry_run:
        says.append("Next: `sluice scheduler run`; once it has caught up, `sluice audit`.")
    screen.show(asdict(done), "\n".join(says), as_json=as_json)
