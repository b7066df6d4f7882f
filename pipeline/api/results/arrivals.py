"""Notes that the result of a machine that works alone (trust 1) is on its way: its vote carries the result's link, so
that it can only come once the pool has received and stored the result.

    the request is served for NOTE_SECONDS, and again after each    noted: the least rate of uploads shows that it moves
    the wallet goes on to send as many others as it may             noted: the pool itself lets this one wait

A quick upload is not noted at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from pymongo.errors import PyMongoError
from starlette.concurrency import run_in_threadpool

from pipeline.api.auth.access import Access
from pipeline.domain.records import Replicate, TaskRecord
from protocol.wire import Mode

log = structlog.get_logger(__name__)

#: Seconds between two notes: a few of them within the least time that a vote has (`Timeouts.contribute_timeout`, 60 s).
NOTE_SECONDS = 15.0


@asynccontextmanager
async def noted_while_served(services: Access, task: TaskRecord, replicate: Replicate) -> AsyncIterator[None]:
    """Note from time to time, until the block ends, that the result of a machine that works alone is coming."""
    if replicate.mode is not Mode.SOLO:
        yield
        return
    notes = asyncio.create_task(_note_always(services, task, replicate))
    try:
        yield
    finally:
        notes.cancel()


async def note_arrival(services: Access, task: TaskRecord, replicate: Replicate) -> None:
    """Note that the result of a machine that works alone is on its way now."""
    if replicate.mode is not Mode.SOLO:
        return
    try:
        await run_in_threadpool(services.store.uploads.record_coming, task.task_id, replicate.wallet, services.clock())
    except PyMongoError as error:
        # The upload goes on, and is noted next time.
        log.info("An upload could not be noted.", action="upload_not_noted", task=task.task_id, why=str(error))


async def _note_always(services: Access, task: TaskRecord, replicate: Replicate) -> None:
    """Note it every NOTE_SECONDS until cancelled."""
    while True:
        await asyncio.sleep(NOTE_SECONDS)
        await note_arrival(services, task, replicate)
