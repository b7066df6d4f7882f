"""Routes about stored rows and deals that this release cannot use, each with its reason."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Query

from pipeline.api.admin.access import Operator, Reader
from pipeline.api.admin.answers.pool import QuarantineChanged, QuarantinedLine
from pipeline.api.admin.pool import DryRun
from protocol.errors import NotFound

log = structlog.get_logger(__name__)
router = APIRouter()

#: Rows in one answer.
MOST_LINES = 1000
Collection = Annotated[str | None, Query(max_length=100, description="Only rows of this collection.")]
Key = Annotated[str | None, Query(max_length=200, description="Only this row.")]
OneKey = Annotated[str, Query(max_length=200, description="The row.")]


@router.get("/quarantine", summary="Stored rows that this release cannot use")
def list_quarantined(
    services: Reader, limit: Annotated[int, Query(ge=1, le=MOST_LINES, description="Lines at most.")] = MOST_LINES
) -> list[QuarantinedLine]:
    """In the order in which they are read again, each with its collection, its reason and the time of that."""
    return [
        QuarantinedLine(
            collection=entry.collection,
            key=str(entry.key),
            why=entry.why,
            since=entry.since,
            until=entry.until,
            times=entry.times,
            accepted=entry.accepted,
        )
        for entry in services.store.quarantine.entries(limit)
    ]


@router.post("/quarantine/retry", summary="Have rows read again by the next sweep")
def retry(
    services: Operator, collection: Collection = None, key: Key = None, dry_run: DryRun = False
) -> QuarantineChanged:
    """A few seconds from now, instead of when it is due: all rows, those of a collection, or one."""
    rows = services.store.quarantine
    count = rows.count(collection, key) if dry_run else rows.make_due(collection, key)
    _require(count, collection, key)
    if not dry_run:
        log.info("Quarantined rows are read again.", action="quarantine_retry", rows=count)
    return QuarantineChanged(rows=count, accepted=None, dry_run=dry_run)


@router.post("/quarantine/accept", summary="Count a row no longer")
def accept(
    services: Operator,
    key: OneKey,
    collection: Collection = None,
    undo: Annotated[bool, Query(description="Count it again.")] = False,
    dry_run: DryRun = False,
) -> QuarantineChanged:
    """Nothing can be done about it, as with a deal that cannot be decoded. It is still read again, and counted again if
    its reason changes. `undo`: count it again now.
    """
    rows = services.store.quarantine
    count = rows.count(collection, key) if dry_run else rows.accept(collection, key, accepted=not undo)
    _require(count, collection, key)
    if not dry_run:
        log.info("Quarantined rows are accepted.", action="quarantine_accept", rows=count, undo=undo)
    return QuarantineChanged(rows=count, accepted=not undo, dry_run=dry_run)


def _require(count: int, *words: str | None) -> None:
    """Raise NotFound if a row is named (`words`) and none fits."""
    given = [word for word in words if word]
    if given and not count:
        raise NotFound(what=f"row in quarantine: {' '.join(given)}")
