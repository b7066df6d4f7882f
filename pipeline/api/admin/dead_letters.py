"""Routes about messages that were delivered too often without success."""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter, Query

from config.celery_apps import core_app
from pipeline.api.admin.access import Operator, Reader
from pipeline.api.admin.answers.pool import DeadLine, DeadMoved
from pipeline.api.admin.pool import DryRun
from pipeline.api.services import Services
from pipeline.broker.dead_letters import DeadLetter, DeadLetters
from protocol.errors import NotFound

log = structlog.get_logger(__name__)
router = APIRouter()

#: Messages in one answer, or moved at once: as many as the queue keeps.
MOST = 10_000
Ids = Annotated[list[str] | None, Query(alias="id", max_length=100, description="Only messages with these ids.")]


@router.get("/dead", summary="Messages that were delivered too often without success, oldest first")
def list_dead(
    services: Reader, limit: Annotated[int, Query(ge=1, le=MOST, description="Messages at most.")] = 100
) -> list[DeadLine]:
    """List dead letters: the task each would have run, its queue, and when it was given up. All stay in the queue."""
    return [_line(letter) for letter in _letters(services).oldest(limit)]


@router.post("/dead/retry", summary="Have such messages delivered again")
def retry(services: Operator, ids: Ids = None, dry_run: DryRun = False) -> DeadMoved:
    """Each goes to the queue that it came from. What fails again comes back after 20 deliveries."""
    return _move(services, "retry", ids, dry_run=dry_run)


@router.post("/dead/drop", summary="Remove such messages")
def drop(services: Operator, ids: Ids = None, dry_run: DryRun = False) -> DeadMoved:
    """No work is lost: the periodic sweep finds it in the database."""
    return _move(services, "drop", ids, dry_run=dry_run)


def _move(services: Services, action: str, ids: list[str] | None, *, dry_run: bool) -> DeadMoved:
    """Retry or drop (`action`) these dead letters; all of them if `ids` is None."""
    letters = _letters(services)
    if dry_run:
        moved = [letter for letter in letters.oldest(MOST) if ids is None or letter.id in ids]
    else:
        moved = letters.retry(ids, MOST) if action == "retry" else letters.drop(ids, MOST)
        log.info("Dead letters were moved.", action=f"dead_{action}", messages=len(moved))
    missing = set(ids or ()) - {letter.id for letter in moved}
    if missing:
        raise NotFound(
            what=f"message {', '.join(sorted(missing))} in the queue `dead`, or it came from no queue of ours"
        )
    return DeadMoved(action=action, dry_run=dry_run, messages=[letter.id for letter in moved])


def _letters(services: Services) -> DeadLetters:
    """The queue of dead letters."""
    return DeadLetters(core_app(services.settings), services.pool.scheduler)


def _line(letter: DeadLetter) -> DeadLine:
    """A dead letter as the operator's API shows it."""
    return DeadLine(
        id=letter.id,
        task=letter.task,
        arguments=letter.arguments,
        queue=letter.queue,
        reason=letter.reason,
        died_at=letter.died_at,
    )
