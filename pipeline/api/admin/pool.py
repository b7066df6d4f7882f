"""Routes about the whole pool: its state on one screen, pause and resume, queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

import pymongo
import structlog
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from pymongo.errors import PyMongoError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from chain.lane.model.intent import IntentState, LaneId
from chain.lane.store.mongo import MongoStore
from config import topology
from config.connections import broker_nodes
from config.redaction import public_url
from pipeline.api.admin.access import Operator, Reader
from pipeline.api.admin.answers.pool import (
    Alert,
    Changed,
    LaneLine,
    PauseModel,
    PoolState,
    QueueCount,
    QueueLine,
    StageLine,
    Status,
    Work,
)
from pipeline.api.admin.gas_days import GasDays, gas_days
from pipeline.api.limits.recent_answers import ANSWER_SECONDS
from pipeline.api.monitor import HealthReport
from pipeline.api.pool import latest
from pipeline.api.services import Services
from pipeline.broker.admin import MACHINES_QUEUES
from pipeline.broker.users import monitor_user
from pipeline.domain.condition.attention import needs
from pipeline.domain.condition.facts import BrokerFacts, DatabaseFacts, Facts, LaneFacts, NoAnswer, NodeFacts
from pipeline.domain.condition.health import task_cost
from pipeline.domain.records import TaskStage
from pipeline.flow.reasons import what_nobody_can_take
from pipeline.store.client import database
from pipeline.store.task.lists import StageCount
from protocol.errors import BrokerUnavailable, Unavailable
from protocol.types import BlockNumber, Wallet

log = structlog.get_logger(__name__)
router = APIRouter()

#: Longest reason of a pause, in characters.
LONGEST_WHY = 500
#: Seconds that the database may take for all that the screen shows, and seconds of what is called the last hour.
DATABASE_SECONDS, HOUR = 3.0, 3600
#: Seconds between two events of `live`: as long as a report is used again.
LIVE_SECONDS = ANSWER_SECONDS
DryRun = Annotated[bool, Query(description="Say what would be done, and change nothing.")]


class Reason(BaseModel):
    """Why the operator does something, for whoever looks later."""

    why: str = Field("", max_length=LONGEST_WHY)


@router.get("/status", summary="The pool on one screen")
async def status(request: Request, services: Reader) -> Status:
    """Alerts with what to do, tasks by stage, machines by state, gas, head and lane."""
    return await run_in_threadpool(_status, services, await latest(request.app.state.services.monitor))


@router.get("/live", summary="The pool on one screen, as it changes", response_class=StreamingResponse)
async def live(request: Request, services: Reader) -> StreamingResponse:
    """Server-sent events: one status every two seconds, until the client disconnects."""
    return StreamingResponse(_events(request, services), media_type="text/event-stream")


@router.get("/pool", summary="Whether the pool begins tasks")
async def state(request: Request, services: Reader) -> PoolState:
    """Whether the operator has paused it, and whether it holds because something that work needs is away. The pause is
    not told while MongoDB does not answer; then the pool holds.
    """
    report = await latest(request.app.state.services.monitor)
    not_well = [] if report is None else [name for name, part in report.parts.items() if not part.ok]
    return PoolState(paused=await run_in_threadpool(_paused, services), holding=_hold(report), not_well=not_well)


@router.post("/pool/pause", summary="Begin no new task")
def pause(services: Operator, reason: Reason | None = None, dry_run: DryRun = False) -> Changed:
    """Tasks that a machine was given are finished. All others wait, and their deadlines go on: the contracts take the
    pool's stake for a deal that it lets expire. Orders that the pool has published are withdrawn.
    """
    before = services.store.pause.state()
    if not dry_run:
        services.store.pause.pause(services.clock(), "" if reason is None else reason.why)
        services.notifier.send_orders()
        log.info("The pool is paused.", action="pool_paused")
    says = "The pool was paused before." if before else "The pool begins no new task from now on."
    return Changed(changed=before is None, dry_run=dry_run, says=says)


@router.post("/pool/resume", summary="Take work again")
def resume(services: Operator, dry_run: DryRun = False) -> Changed:
    """Ends a pause; what waited is begun within seconds."""
    before = services.store.pause.state()
    if not dry_run and services.store.pause.resume() is not None:
        services.notifier.send_assign()
        services.notifier.send_orders()
        log.info("The pool is resumed.", action="pool_resumed")
    says = "The pool was not paused." if before is None else "The pool takes work again."
    return Changed(changed=before is not None, dry_run=dry_run, says=says)


@router.get("/queues", summary="RabbitMQ's queues")
def queues(services: Reader) -> list[QueueLine]:
    """The scheduler's queues, and those of all machines together: not while RabbitMQ cannot list those."""
    counts = services.broker.queues()
    try:
        counts.append(services.broker.machines_queues())
    except BrokerUnavailable as error:
        log.warning("The machines' queues cannot be listed.", action="queues_machines", why=str(error))
    return [
        QueueLine(
            name=found.name,
            ready=found.ready,
            unacknowledged=found.unacknowledged,
            consumers=found.consumers,
            machines=found.queues if found.name == MACHINES_QUEUES else None,
        )
        for found in counts
    ]


async def _events(request: Request, services: Services) -> AsyncIterator[str]:
    """The pool's state as server-sent events, one every LIVE_SECONDS, until the client has gone."""
    while not await request.is_disconnected():
        report = await latest(services.monitor)
        found = await run_in_threadpool(request.app.state.answers.get, "status", partial(_status, services, report))
        yield f"data: {found.model_dump_json()}\n\n"
        await asyncio.sleep(LIVE_SECONDS)


def _status(services: Services, report: HealthReport | None) -> Status:
    """The pool's state: alerts, work by stage, machines, money."""
    settings = services.settings
    facts = None if report is None else report.facts
    node = facts.node if facts is not None and isinstance(facts.node, NodeFacts) else None
    cursor = facts.database.cursor if facts is not None and isinstance(facts.database, DatabaseFacts) else None
    work = _work(services, None if node is None else node.head)
    alerts = [*_alerts(report, work, services.clock()), *_needs(services, facts, work)]
    lasts = GasDays() if node is None else gas_days(services, node.balance)
    return Status(
        ok=not alerts,
        now=services.clock(),
        workerpool=services.pool.workerpool,
        scheduler=services.pool.scheduler,
        chain_id=settings.chain_id,
        alerts=alerts,
        parts={} if report is None else {name: part.detail for name, part in report.parts.items()},
        holding=_hold(report),
        head=None if node is None else node.head,
        behind_blocks=None if node is None or cursor is None else max(0, node.head - cursor.number),
        gas_balance_wei=None if node is None else node.balance,
        gas_for_tasks=None if node is None else _tasks_paid_for(node, settings.keep_balance_wei),
        gas_days=lasts.days,
        gas_says=lasts.says,
        stake_free_nrlc=None if node is None else node.stake,
        stake_locked_nrlc=None if node is None else node.locked,
        lane=None if facts is None or facts.lane is None else _lane(facts.lane),
        queues=None if facts is None else _queue_counts(facts.broker, services.pool.scheduler),
        flower=f"http://{_here(settings.flower_host)}:{settings.flower_port}",
        rabbitmq=public_url(broker_nodes.api_urls(settings)[0]),
        monitor=monitor_user(settings.amqp_core_vhost),
        work=work,
    )


def _lane(facts: LaneFacts) -> LaneLine:
    """The state of the scheduler's lane in the last health report."""
    return LaneLine(halted=facts.halted, waits=facts.stuck, oldest_seconds=facts.waiting, why=facts.why)


def _queue_counts(facts: BrokerFacts | NoAnswer | None, scheduler: Wallet) -> list[QueueCount] | None:
    """Messages by queue; None where RabbitMQ did not count them."""
    if not isinstance(facts, BrokerFacts) or not facts.queues:
        return None
    lane = topology.lane_queue_name(scheduler)
    return [
        QueueCount(
            name="lane" if queue.name == lane else queue.name,
            ready=queue.ready,
            unacknowledged=queue.unacknowledged,
        )
        for queue in facts.queues
    ]


def _here(host: str) -> str:
    """The URL at which a service that listens at this address is reached from its own host."""
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound


def _paused(services: Services) -> PauseModel | None:
    """Since when and why the operator has paused the pool; None if it is not, or MongoDB does not answer."""
    try:
        with pymongo.timeout(DATABASE_SECONDS):
            pause = services.store.pause.state()
    except PyMongoError:
        return None
    return None if pause is None else PauseModel(since=pause.since, why=pause.why)


def _hold(report: HealthReport | None) -> PauseModel | None:
    """Since when the pool holds back new work, and why; None if it does not, or no report could be made."""
    return None if report is None or report.hold is None else PauseModel(since=report.hold.since, why=report.hold.why)


def _work(services: Services, head: BlockNumber | None) -> Work | None:
    """The pool's work, from the database; None if not all of it was read in time."""
    now, store, settings = services.clock(), services.store, services.settings
    hour_ago = None if head is None else BlockNumber(max(0, head - int(HOUR / settings.block_time)))
    lane = LaneId(settings.chain_id, services.pool.scheduler)
    try:
        with pymongo.timeout(DATABASE_SECONDS):
            stages, paused = store.lists.count_by_stage(), store.pause.state()
            machines = store.census.count_by_state(now, settings.worker_lost_seconds)
            return Work(
                open_tasks=sum(found.count for found in stages.values()),
                begun_tasks=store.lists.count_begun(now),
                stages=[_stage(stage, found, now) for stage, found in stages.items()],
                deals_last_hour=None if hour_ago is None else store.deals.count_since(hour_ago),
                completed_last_hour=None if hour_ago is None else store.lists.count_finalized_since(hour_ago),
                machines={str(state): count for state, count in machines.items()},
                transactions_open=MongoStore(database(settings)).count(lane, (IntentState.QUEUED, IntentState.SENT)),
                quarantined=sum(store.quarantine.counts().values()),
                paused=None if paused is None else PauseModel(since=paused.since, why=paused.why),
            )
    except PyMongoError as error:
        log.warning("The pool's work cannot be counted.", action="status_database", why=type(error).__name__)
        return None


def _stage(stage: TaskStage, found: StageCount, now: float) -> StageLine:
    """How many tasks are in a stage, and the age of the oldest."""
    age = None if found.oldest is None else max(0.0, now - found.oldest)
    return StageLine(stage=str(stage), count=found.count, oldest_seconds=age)


def _alerts(report: HealthReport | None, work: Work | None, now: float) -> list[Alert]:
    """Parts of the pool that are not well, each with what to do."""
    found = []
    if report is None:
        says = "no report on the pool's health could be made in time"
        found.append(Alert(part="monitor", says=says, fix="See the log of the process `api`."))
    else:
        bad = {name: part for name, part in report.parts.items() if not part.ok}
        found += [Alert(part=name, says=part.detail, fix=part.fix) for name, part in bad.items()]
    if (hold := _hold(report)) is not None:
        says = f"the pool has been holding for {max(now - hold.since, 0):.0f} s and begins nothing new: {hold.why}"
        found.append(Alert(part="holding", says=says, fix="It goes on by itself once that is well."))
    if work is None:
        says = (
            f"MongoDB did not count tasks and machines in {DATABASE_SECONDS:g} s, nor tell whether the pool is paused"
        )
        fix = "See whether it is overloaded, and the log of the process `api` (`action=status_database`)."
        found.append(Alert(part="work", says=says, fix=fix))
    elif work.paused is not None:
        why = f": {work.paused.why}" if work.paused.why else ""
        says = f"the pool was paused {now - work.paused.since:.0f} s ago and begins no task{why}"
        found.append(Alert(part="pause", says=says, fix="Run `sluice pool resume` when it may go on."))
    return found


def _needs(services: Services, facts: Facts | None, work: Work | None) -> list[Alert]:
    """Alerts about what needs the operator although all parts are well, as far as the database answers in time."""
    store, now = services.store, services.clock()
    try:
        with pymongo.timeout(DATABASE_SECONDS):
            paid = any(deal.record is not None and deal.record.worker_stake for deal in store.deals.newest(1))
            for_nobody = services.slow_answers.get(
                "for nobody", lambda: what_nobody_can_take(store, services.settings, now)
            )
    except (PyMongoError, Unavailable) as error:
        log.warning("What needs the operator is not known.", action="needs_database", why=type(error).__name__)
        paid, for_nobody = False, []
    found = needs(facts, 0 if work is None else work.quarantined, for_nobody, paid=paid)
    return [Alert(part=need.part, says=need.says, fix=need.fix) for need in found]


def _tasks_paid_for(node: NodeFacts, keep_balance: int) -> int:
    """For how many tasks the wallet's balance pays the gas."""
    each = task_cost(node.max_fee, 0)
    return max(0, node.balance - keep_balance) // each if each else 0
