"""The scheduler's Celery tasks: one function call each, safe to run twice or never, because the store is the truth.

    a task ──MongoDB, RabbitMQ or the node does not answer──► pipeline.retry ──1, 2, 4 … s later──► its own queue
                                                              (RETRIES times; then the sweep finds the work again)

A wait for them is a message in that queue, and holds no process. If RabbitMQ does not take the retry either, the
message goes back to its queue.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog
from celery import Task, shared_task
from celery.exceptions import Reject, SoftTimeLimitExceeded

from config import topology
from config.celery_apps import ConfirmTimeoutCelery
from config.processes.per_process import PerProcess
from config.settings import Settings
from pipeline.broker import notify
from pipeline.flow import assign, bulk, ingest, sweep
from pipeline.flow.advance_each import advance_each
from pipeline.flow.audit import run as audit
from pipeline.flow.cleanup import tidy
from pipeline.flow.isolate import TRANSIENT_ERRORS
from pipeline.flow.orders import keep as orders
from pipeline.flow.transactions import failures_of
from pipeline.scheduler import Scheduler
from protocol.types import DealId, TaskId

log = structlog.get_logger(__name__)

#: Retries of a task, after 1, 2, 4, 8, 8 and 8 s: longer than a restart of MongoDB or RabbitMQ takes.
RETRIES = 6
#: Seconds: longest wait before a retry.
RETRY_SECONDS = 8
#: Tries to publish a retry, within a second: one for each connection that a restart of RabbitMQ has cut.
PUBLISH_TRIES = 3
#: Seconds for one task. It is milliseconds to seconds of work, but each of its requests may end by its own timeout
#: (MongoDB 20 s, RabbitMQ and node 5 s). Below the 30 min after which RabbitMQ takes a message back. At the soft limit
#: the task fails, and at the hard one its process is killed, which every step survives; the sweep finds the work again.
SOFT_SECONDS, HARD_SECONDS = 300, 330
#: The same for a run that asks markets, which are strangers: they may not hold the pool's processes for long.
ORDERS_SOFT_SECONDS, ORDERS_HARD_SECONDS = 30, 45


class SchedulerTask(Task[Any, Any]):
    """A task with this process's scheduler, that is retried after a transient error."""

    soft_time_limit = SOFT_SECONDS
    time_limit = HARD_SECONDS
    autoretry_for: tuple[type[Exception], ...] = TRANSIENT_ERRORS
    #: Its soft time limit has passed.
    dont_autoretry_for = (SoftTimeLimitExceeded,)
    max_retries = RETRIES
    retry_backoff = 1
    retry_backoff_max = RETRY_SECONDS
    #: Messages that fail together came one after the other, and are small.
    retry_jitter = False
    #: Errors that Celery logs without a traceback.
    throws = TRANSIENT_ERRORS

    @property
    def scheduler(self) -> Scheduler:
        """This process's scheduler, opened with its first task."""
        assert isinstance(self.app, ConfirmTimeoutCelery)
        assert self.app.context is not None
        scheduler: Scheduler = self.app.context.get()
        return scheduler

    def retry(
        self,
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        exc: Exception | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """Retry the task as Celery does, but with the message waiting at the broker for `countdown` seconds.

        Celery would keep the message in this process, where it counts as work under way, or need 28 more queues for its
        delayed delivery.
        """
        queue, came_by = topology.retry_queue(), self.request.delivery_info or {}
        options |= {
            "exchange": queue.exchange.name,
            "routing_key": came_by.get("routing_key"),
            "declare": [queue],
            "expiration": countdown,
            "retry_policy": {"max_retries": PUBLISH_TRIES},
        }
        try:
            return super().retry(args, kwargs, exc, throw, eta, 0, max_retries, **options)
        except Reject as error:
            # RabbitMQ did not take the retry. Celery would give the message up.
            raise Reject("the retry could not be published", requeue=True) from error

    def on_retry(self, exc: Exception, *_: Any) -> None:
        """Log that the task is retried, and why. Celery calls it after each retry."""
        log.warning("Trying again later.", action="try_again", what=self.name, why=str(exc), tries=self.request.retries)

    def on_failure(self, exc: Exception, *_: Any) -> None:
        """Log that a task is given up because a server was away. Celery calls it after the last retry, or after an
        error that is not retried.
        """
        if isinstance(exc, TRANSIENT_ERRORS):
            log.error("Given up; the sweep will find it.", action="given_up", what=self.name, why=str(exc))


class ClockTask(SchedulerTask):
    """A task that is not retried, because the clock publishes it again in some seconds."""

    autoretry_for = ()


def serve(app: ConfirmTimeoutCelery, settings: Settings) -> None:
    """Register the scheduler's Celery tasks with `app`, for its worker processes."""
    app.context = PerProcess(lambda: Scheduler.open(settings, app))


@shared_task(name=topology.INGEST_DEALS, base=SchedulerTask, bind=True)
def ingest_deals(self: SchedulerTask, deal_ids: list[str]) -> None:
    """Read deals from the chain and begin with their first tasks."""
    _ingest(self.scheduler, [DealId(item) for item in deal_ids])


@shared_task(name=topology.ADVANCE, base=SchedulerTask, bind=True)
def advance(self: SchedulerTask, task_ids: list[str]) -> None:
    """Decide what each task needs next, and do it."""
    advance_each(self.scheduler, [TaskId(item) for item in task_ids])


@shared_task(name=topology.ASSIGN, base=SchedulerTask, bind=True)
def assign_tasks(self: SchedulerTask) -> None:
    """Match waiting tasks with free slots; with the header FREED, of machines that are known to take tasks."""
    assign.assign(self.scheduler, check_unfunded=notify.FREED not in (self.request.headers or {}))


@shared_task(name=topology.SWEEP, base=ClockTask, bind=True)
def sweep_tasks(self: ClockTask) -> None:
    """Run one sweep: visit every open task that is due."""
    sweep.sweep(self.scheduler)


@shared_task(name=topology.TIDY, base=ClockTask, bind=True)
def tidy_up(self: ClockTask) -> None:
    """Remove broker users and queues of machines that are long silent, and old results."""
    tidy.tidy(self.scheduler)


@shared_task(name=topology.AUDIT, base=ClockTask, bind=True)
def audit_pool(self: ClockTask, since: float) -> None:
    """Compare database, chain, RabbitMQ and IPFS, if that is due: after a start at `since`, and daily."""
    audit.audit_when_due(self.scheduler, since)


@shared_task(
    name=topology.ORDERS,
    base=ClockTask,
    bind=True,
    soft_time_limit=ORDERS_SOFT_SECONDS,
    time_limit=ORDERS_HARD_SECONDS,
)
def keep_orders(self: ClockTask) -> None:
    """Sign, publish, renew and withdraw the pool's offers."""
    orders.keep_orders(self.scheduler)


@shared_task(name=topology.BULK, base=SchedulerTask, bind=True)
def bulk_piece(self: SchedulerTask) -> None:
    """Do the next piece of large deals."""
    bulk.bulk(self.scheduler)


@shared_task(name=topology.RUN_LANE, base=SchedulerTask, bind=True)
def run_lane(self: SchedulerTask, wallet: str) -> None:
    """Run the lane of the workerpool owner's `wallet`."""
    if wallet == self.scheduler.key.wallet:
        _run_lane(self.scheduler)


def _ingest(scheduler: Scheduler, deal_ids: list[DealId]) -> None:
    """Read deals from the chain and advance their first tasks; the rest of large deals is left to `pipeline.bulk`."""
    ours = ingest.Ours(scheduler.workerpool, scheduler.key.wallet)
    found, more = ingest.ingest(scheduler.store, scheduler.registry_cache, ours, deal_ids, scheduler.clock())
    now, *later = list(notify.chunks(found, notify.ADVANCE_CHUNK)) or [[]]
    scheduler.notifier.send_advance([task_id for chunk in later for task_id in chunk])
    if more:
        scheduler.notifier.send_bulk()
    advance_each(scheduler, now)


def _run_lane(scheduler: Scheduler) -> None:
    """One run of the lane; intents that failed are recorded in their tasks, which are advanced then."""
    report = scheduler.lane.run()
    now = scheduler.clock()
    failures = failures_of(report.ended, scheduler.chain_time.read(now) or now)
    scheduler.store.tasks.record_failed_intents(failures)
    scheduler.notifier.send_advance(sorted({failure.task for failure in failures}))
    if report.mined and bulk.has_capacity(scheduler):
        scheduler.notifier.send_bulk()
    if report.wake_again:
        scheduler.notifier.send_lane()
