"""What `/metrics` reads when it is asked: the last report on the pool, and figures of the database, bounded in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pymongo
import structlog
from prometheus_client.core import GaugeMetricFamily
from pymongo.errors import PyMongoError

from chain.lane.model.intent import IntentState, LaneId
from chain.lane.store.mongo import MongoStore
from config import metrics, topology
from config.values.order_policy import TAGS
from pipeline.api.auth.access import Access
from pipeline.domain.condition.facts import BrokerFacts, DatabaseFacts, NodeFacts, QueueFacts
from pipeline.domain.condition.health import task_cost
from pipeline.domain.records import TaskStage
from pipeline.store.client import database
from pipeline.store.machine.census import Capacity
from pipeline.store.task.lists import StageCount
from protocol.poco.tags import fits, make_tag
from protocol.types import Hash32, Wallet

log = structlog.get_logger(__name__)

#: What asks the database for some gauges.
Question = Callable[[], list[GaugeMetricFamily]]
#: Seconds that the database may take for each of them; the other metrics do not wait longer for it.
COUNT_SECONDS = 3.0
#: States of actions that are not on chain yet.
_OPEN = (IntentState.QUEUED, IntentState.SENT)


class Readings:
    """Gauges read at each scrape. Labels are names of ours, so their number is bounded."""

    def __init__(self, services: Access) -> None:
        self._services = services

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges of the database and of the last report; without those whose server did not answer."""
        yield metrics.BLOCK_TIME.of(self._services.settings.block_time)
        yield from self._stored()
        report, age = self._services.monitor.last, self._services.monitor.age
        if report is None or age is None:
            return
        yield metrics.PART_OK.by({name: float(part.ok) for name, part in report.parts.items()})
        yield metrics.HOLDING.of(report.hold is not None)
        yield metrics.REPORT_AGE.of(age)
        facts = report.facts
        if isinstance(facts.node, NodeFacts):
            yield from self._node(facts.node, facts.now)
        if isinstance(facts.database, DatabaseFacts) and facts.database.cursor is not None:
            yield metrics.WATCHER_BLOCK.of(facts.database.cursor.number)
            if isinstance(facts.node, NodeFacts):
                yield metrics.INGEST_LAG.of(max(0, facts.node.head - facts.database.cursor.number))
        if isinstance(facts.broker, BrokerFacts) and facts.broker.queues:
            yield from queue_readings(facts.broker.queues, self._services.pool.scheduler)
        if facts.machines is not None:
            yield metrics.WORKERS_ABLE.of(facts.machines.able)

    def _node(self, node: NodeFacts, now: float) -> Iterable[GaugeMetricFamily]:
        """The gauges that the node's answers give."""
        yield metrics.CHAIN_HEAD.of(node.head)
        yield metrics.HEAD_AGE.of(now - node.timestamp)
        yield metrics.WALLET_BALANCE.of(node.balance)
        yield metrics.TASK_COST.of(task_cost(node.max_fee, self._services.settings.keep_balance_wei))
        if node.stake is not None and node.locked is not None:
            yield metrics.STAKE_FREE.of(node.stake)
            yield metrics.STAKE_LOCKED.of(node.locked)

    def _stored(self) -> list[GaugeMetricFamily]:
        """The database's gauges, read in parallel; one that takes too long or fails is left out, the others are not."""
        services, store, settings = self._services, self._services.store, self._services.settings
        now, lane = services.clock(), LaneId(settings.chain_id, services.pool.scheduler)
        transactions = MongoStore(database(settings))

        def machines() -> list[GaugeMetricFamily]:
            """The gauge of machines by state."""
            counts = store.census.count_by_state(now, settings.worker_lost_seconds)
            return [metrics.MACHINES.by({str(state): count for state, count in counts.items()})]

        def oldest_transaction() -> list[GaugeMetricFamily]:
            """The gauge of the age of the lane's oldest open transaction."""
            oldest = transactions.in_state(lane, _OPEN, 1)
            return [metrics.TRANSACTION_OLDEST_AGE.of(max(0.0, now - oldest[0].created_at) if oldest else 0.0)]

        def quarantined() -> list[GaugeMetricFamily]:
            """The gauge of quarantined rows by collection."""
            counts = {**dict.fromkeys(("tasks", "deals"), 0.0), **store.quarantine.counts()}
            return [metrics.QUARANTINED_ROWS.by(counts)]

        questions: list[Question] = [
            lambda: stage_readings(store.lists.count_by_stage(), now),
            machines,
            lambda: slot_readings(store.census.capacity(now - settings.worker_lost_seconds, now)),
            lambda: [metrics.TRANSACTIONS_OPEN.of(transactions.count(lane, _OPEN))],
            oldest_transaction,
            quarantined,
            lambda: [metrics.PAUSED.of(store.pause.state() is not None)],
        ]
        with ThreadPoolExecutor(len(questions), thread_name_prefix="reading") as threads:
            return [reading for found in threads.map(_in_time, questions) for reading in found]


def _in_time(question: Question) -> list[GaugeMetricFamily]:
    """What the database answers within COUNT_SECONDS; nothing if it does not."""
    try:
        with pymongo.timeout(COUNT_SECONDS):
            return question()
    except PyMongoError as error:
        log.warning(
            "A figure of the database is missing.", action="metrics_database", why=str(error).partition(" (")[0]
        )
        return []


def stage_readings(stages: Mapping[TaskStage, StageCount], now: float) -> list[GaugeMetricFamily]:
    """Tasks by stage, and for each stage with tasks the age of the oldest, and the share of its time that the oldest
    task, or the one whose deadline comes first, has used: whichever is more.
    """
    ages = {stage: max(0.0, now - found.oldest) for stage, found in stages.items() if found.oldest is not None}
    used = {
        stage: max(window.used(now) for window in found.windows) for stage, found in stages.items() if found.windows
    }
    return [
        metrics.TASKS.by({str(stage): found.count for stage, found in stages.items()}),
        metrics.OLDEST_TASK_AGE.by({str(stage): age for stage, age in ages.items()}),
        metrics.OLDEST_TASK_WINDOW.by({str(stage): part for stage, part in used.items()}),
    ]


def slot_readings(capacity: Mapping[Hash32, Capacity]) -> list[GaugeMetricFamily]:
    """Slots by what machines offer. Machines may make up tags, so those are counted by the few names that tags have."""
    names = dict.fromkeys(("any", *TAGS), 0.0)
    every, free = dict(names), dict(names)
    for tag, found in capacity.items():
        for name in names:
            if name == "any" or fits(make_tag(TAGS[name]), tag):
                every[name] += found.held + found.free
                free[name] += found.free
    return [metrics.SLOTS.by(every), metrics.SLOTS_FREE.by(free)]


def queue_readings(queues: Iterable[QueueFacts], scheduler: Wallet) -> list[GaugeMetricFamily]:
    """Messages by queue. That of the scheduler's lane is called `lane`, so that queries need not know the wallet."""
    lane = topology.lane_queue_name(scheduler)
    named = {"lane" if queue.name == lane else queue.name: queue for queue in queues}
    found = [
        metrics.QUEUE_READY.by({name: queue.ready for name, queue in named.items()}),
        metrics.QUEUE_UNACKNOWLEDGED.by({name: queue.unacknowledged for name, queue in named.items()}),
        metrics.QUEUE_AGE.by({name: queue.age for name, queue in named.items()}),
    ]
    if topology.DEAD_QUEUE in named:
        found.append(metrics.DEAD_LETTERS.of(named[topology.DEAD_QUEUE].ready))
    return found
