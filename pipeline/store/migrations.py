"""Steps from what an older release stored to what this one reads, taken at start.

Every step is idempotent and made of conditional updates, so that several processes may take it at a time and a crash in
the middle costs nothing; the version is noted when it is done. A step never changes what the release before could not
read any more: both may share a database during an upgrade.

Rows are not rewritten to carry a new version: a field that is missing has a default (`pipeline.store.documents`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from pymongo import UpdateOne
from pymongo.database import Database

from pipeline.store.deals import NEW, UNREADABLE
from pipeline.store.documents import SCHEMA
from pipeline.store.quarantine import Quarantine

log = structlog.get_logger(__name__)

#: The row in `cursors` that tells the version.
VERSION = "schema"
#: Rows changed at a time.
_BATCH = 1000


def migrate(db: Database[dict[str, Any]]) -> int:
    """Take the steps that are still to be taken; returns the version found. Cheap when there are none."""
    row = db["cursors"].find_one({"_id": VERSION}) or {}
    found = int(row.get("version") or 1)
    for version in range(found + 1, SCHEMA + 1):
        _STEPS[version](db)
        log.info("The database was brought to a new version.", action="migrated", version=version)
    if found < SCHEMA:
        db["cursors"].update_one({"_id": VERSION}, {"$max": {"version": SCHEMA}}, upsert=True)
    again = Quarantine(db).new_release()
    if again:
        log.info("What another release set aside is read again.", action="quarantine_again", rows=again)
    return found


def _second(db: Database[dict[str, Any]]) -> None:
    """0.1 marked a deal unreadable for ever when a node answered `0x` once: they are read again."""
    deals = db["deals"]
    while rows := list(deals.find({"state": UNREADABLE, "schema": {"$exists": False}}, {"_id": 1}).limit(_BATCH)):
        deals.bulk_write(
            [
                UpdateOne(
                    {"_id": row["_id"], "state": UNREADABLE, "schema": {"$exists": False}},
                    {"$set": {"state": NEW, "schema": 2}},
                )
                for row in rows
            ],
            ordered=False,
        )


_STEPS: dict[int, Callable[[Database[dict[str, Any]]], None]] = {2: _second}
