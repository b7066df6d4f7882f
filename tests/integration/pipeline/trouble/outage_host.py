"""A scheduler host of an outage pool: what its processes do, a step at a time and by a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pymongo

from beat.watch import LOOKBACK
from chain.lane.model.policy import LanePolicy
from chain.watch.watcher import Watcher
from config import topology
from config.settings import Settings
from pipeline import tasks
from pipeline.api.monitor import Monitor
from pipeline.api.results.refusals import Refusals
from pipeline.broker.link import BROKER_ERRORS
from pipeline.flow import sweep
from pipeline.flow.advance_each import advance_each
from pipeline.flow.chain_time import ChainTime
from pipeline.flow.isolate import TRANSIENT_ERRORS
from pipeline.probes import Probes
from pipeline.scheduler import Scheduler
from protocol.types import BlockNumber


@dataclass
class OutageHost:
    """`name`: by which it holds the pool; `now`: the pool's seconds; `ahead`: seconds that its own clock is off."""

    settings: Settings
    name: str
    now: Callable[[], float]
    ahead: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler.open(self.settings)
        self.scheduler.clock = self.clock
        rpc, cursor = self.scheduler.hub.rpc, self.scheduler.store.chain.cursor
        self.scheduler.chain_time = ChainTime(rpc, cursor, self.settings.block_time, monotonic=self.now)
        self.scheduler.ensure_indexes()
        for app in (self.scheduler.core, self.scheduler.pool):
            # Half a minute of tries tells no more than one.
            app.conf.task_publish_retry = False
        self.watcher = Watcher(
            self.scheduler.hub.rpc,
            self.scheduler.hub,
            self.scheduler.workerpool,
            self.scheduler.store.chain,
            LOOKBACK,
            BlockNumber(0),
            LanePolicy.of(self.settings).finality,
        )
        self.refusals = Refusals(self.now)
        self.probes = Probes.open(self.settings, self.scheduler.key, self.refusals.facts)
        self.probes.clock, self.probes.monotonic = self.clock, self.now
        self.monitor = Monitor(self.probes, lambda: None, self.hold, clock=self.now)

    def close(self) -> None:
        self.monitor.close()
        self.scheduler.close()

    def clock(self) -> float:
        """Unix seconds of this host."""
        return self.now() + self.ahead

    def parts(self) -> Iterator[Callable[[], object]]:
        """What its processes do in one step, in order."""
        yield from (self._follow, self._sweep, self._lane, self._lose_messages)

    def hold(self, why: str | None) -> None:
        """What its API stores for all when it finds that the pool holds, or goes on."""
        with suppress(*TRANSIENT_ERRORS):
            if why is None:
                self.scheduler.store.hold.release(self.name)
            else:
                self.scheduler.store.hold.hold(why, self.name)

    def disconnect(self) -> None:
        """Close what it publishes by."""
        with suppress(*BROKER_ERRORS, pymongo.errors.PyMongoError):
            self.scheduler.notifier.close()

    def _follow(self) -> None:
        for caught in self.watcher.catch_up(self.scheduler.hub.head()):
            tasks._ingest(self.scheduler, list(caught.deals))
            advance_each(self.scheduler, list(caught.tasks))

    def _sweep(self) -> None:
        sweep.sweep(self.scheduler)

    def _lane(self) -> None:
        tasks._run_lane(self.scheduler)

    def _lose_messages(self) -> None:
        """Nobody reads what the scheduler publishes for itself; while messages wait, what is not urgent waits too."""
        with self.scheduler.notifier._link.producer() as producer:
            channel: Any = producer.channel
            channel.queue_purge(topology.PIPELINE_QUEUE)
