"""The scheduler's Celery tasks: thin, and safe to run twice or never, because the store is the truth.

MongoDB, RabbitMQ or a node that does not answer is waited for here, a while; after that the message is let go and the
sweep finds the work again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import structlog
from celery import Celery
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from config.settings import Settings
from pipeline.broker import notify
from pipeline.flow import assign, bulk, ingest, sweep
from pipeline.flow.advance_each import advance_each
from pipeline.flow.isolate import PASSING
from pipeline.flow.transactions import failures_of
from pipeline.scheduler import Scheduler, of_process
from protocol.types import DealId, TaskId

log = structlog.get_logger(__name__)
P = ParamSpec("P")

#: Seconds a task waits for them: longer than a restart of MongoDB or RabbitMQ.
PATIENCE_SECONDS = 30.0
#: Longest pause between two tries, seconds.
PAUSE_SECONDS = 1.0


def patiently(what: str, call: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call until it succeeds or patience ends; then say so and let go."""
    retrying = Retrying(
        retry=retry_if_exception_type(PASSING),
        wait=wait_random_exponential(multiplier=0.1, max=PAUSE_SECONDS),
        stop=stop_after_delay(PATIENCE_SECONDS),
        before_sleep=_tell,
        reraise=True,
    )
    try:
        retrying(call, *args, **kwargs)
    except PASSING as error:
        log.exception("Given up; the sweep will find it.", action="given_up", what=what, why=str(error))


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("Not now, trying again.", action="try_again", why=str(error), tries=state.attempt_number)


def ingest_deals(scheduler: Scheduler, deal_ids: list[DealId]) -> None:
    """Read deals from the chain and set their first tasks going; what a message's time cannot hold is bulk work."""
    found, more = ingest.ingest(scheduler.store, scheduler.catalogue, scheduler.workerpool, deal_ids, scheduler.clock())
    now, *later = list(notify.chunks(found, notify.ADVANCE_CHUNK)) or [[]]
    scheduler.wake.advance([task_id for chunk in later for task_id in chunk])
    if more:
        scheduler.wake.bulk()
    advance_each(scheduler, now)


def run_lane(scheduler: Scheduler) -> None:
    """One run of the lane; what failed in it is noted at its tasks, which then are looked at."""
    report = scheduler.lane.run()
    failures = failures_of(report.ended)
    scheduler.store.tasks.intents_failed(failures)
    scheduler.wake.advance(sorted({task_id for task_id, *_ in failures}))
    if report.mined and bulk.has_room(scheduler):
        scheduler.wake.bulk()
    if report.wake_again:
        scheduler.wake.lane()


def register(app: Celery, settings: Settings) -> None:
    """Add all tasks to `app`."""

    @app.task(name="pipeline.ingest_deals")
    def _ingest_deals(deal_ids: list[str]) -> None:
        patiently("ingest_deals", ingest_deals, of_process(settings, app), [DealId(item) for item in deal_ids])

    @app.task(name="pipeline.advance")
    def _advance(task_ids: list[str]) -> None:
        patiently("advance", advance_each, of_process(settings, app), [TaskId(item) for item in task_ids])

    @app.task(name="pipeline.assign")
    def _assign() -> None:
        patiently("assign", assign.assign, of_process(settings, app))

    @app.task(name="pipeline.sweep")
    def _sweep() -> None:
        patiently("sweep", sweep.sweep, of_process(settings, app))

    @app.task(name="pipeline.bulk")
    def _bulk() -> None:
        patiently("bulk", bulk.bulk, of_process(settings, app))

    @app.task(name="lane.run")
    def _run_lane(wallet: str) -> None:
        scheduler = of_process(settings, app)
        if wallet == scheduler.key.wallet:
            patiently("lane", run_lane, scheduler)
