"""`sluice shard`: spread the scheduler's database over the shards of MongoDB."""

from __future__ import annotations

import typer

from config.settings import settings
from ops.admin import screen
from ops.admin.screen import DryRun, Json


def register(app: typer.Typer) -> None:
    """Add `sluice shard`."""
    app.command("shard", epilog="Examples: `sluice shard --dry-run`, `sluice shard`, `sluice shard --json`")(_shard)


def _shard(dry_run: DryRun = False, as_json: Json = False) -> None:
    """Shard the large collections, where SLUICE_MONGODB_URI leads to a router of MongoDB (mongos).

    Once, before the scheduler's first start or later, also while it works; what is sharded already stays as it is.
    MongoDB then moves what was stored. After a restore, give it again. `--dry-run` lists every collection with its
    shard key.
    """
    from pipeline.store.client import Store, answering, database  # noqa: PLC0415
    from pipeline.store.database import sharding  # noqa: PLC0415

    with answering():
        db = database(settings())
        missing = {each.collection for each in sharding.unsharded(db)}
        if not dry_run:
            Store.of(db).ensure_indexes()
            sharding.shard(db)
    state = "to be sharded" if dry_run else "sharded now"
    found = [
        {"collection": name, "key": key, "state": _state(name, key, missing, state), "why": why}
        for name, key, why in sharding.table()
    ]
    rows = [tuple(each.values()) for each in found]
    screen.show(found, screen.table(("collection", "shard key", "state", "why"), rows, empty=""), as_json=as_json)


def _state(name: str, key: str, missing: set[str], state: str) -> str:
    """How a collection is stored, or is about to be (`state`)."""
    if name in missing:
        return state
    return "on one shard" if key == "–" else "sharded"
