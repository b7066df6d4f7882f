"""The process `watch`: follows the blocks, and publishes a Celery task for each deal and task that they are about.

    head ─► catch up: logs and blocks stored, then the cursor ─► deals     pipeline.ingest_deals
                                                               ─► tasks     pipeline.advance
                                                               ─► open txs  lane.run

A second thread follows which machines are connected to RabbitMQ (`pipeline.broker.presence`), a third cuts off those
that fill its memory (`pipeline.broker.floods`).

What could not be published is published with the next block. A crash before that costs little: the last LOOKBACK blocks
are read again at start, and the sweep visits every open task anyway.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog
from pymongo.errors import PyMongoError

from chain.contracts.ens_names import with_addresses
from chain.lane.model.policy import LanePolicy
from chain.rpc.announced import Announced
from chain.rpc.heads import heads
from chain.watch.watcher import Caught, Watcher
from config import logging
from config.settings import Settings, settings
from config.values.endpoints import asks_who_announces
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.floods import Floods
from pipeline.broker.notify import Notifier
from pipeline.broker.presence import Presence
from pipeline.scheduler import Scheduler
from protocol.errors import BrokerUnavailable, RpcError, RpcUnavailable, Unavailable
from protocol.types import BlockNumber, DealId, TaskId

log = structlog.get_logger(__name__)

#: Blocks below the head that may still be replaced; a new process reads them again.
LOOKBACK = 64
#: The lane runs once in so many blocks while its transactions are all mined and only wait for their depth.
SETTLE_HEADS = 6
#: Seconds for each other thread to end.
STOP_SECONDS = 2.0
#: Errors after which the next block tries again.
TRANSIENT_ERRORS = (Unavailable, RpcError, PyMongoError)


@dataclass(slots=True)
class PendingNotifications:
    """What is still to be published, without duplicates."""

    scheduler: Scheduler
    deals: dict[DealId, None] = field(default_factory=dict)
    tasks: dict[TaskId, None] = field(default_factory=dict)
    #: A reorg may have taken transactions back.
    lane: bool = False

    def add(self, caught: Caught) -> None:
        """Add the deals and tasks of one step that the watcher has stored."""
        self.deals.update(dict.fromkeys(caught.deals))
        self.tasks.update(dict.fromkeys(caught.tasks))
        # Only a reorg comes without blocks.
        self.lane = self.lane or not caught.blocks

    def publish(self) -> None:
        """Publish deals and tasks. Raises BrokerUnavailable, and then all of them are still pending."""
        self.scheduler.notifier.send_ingest(list(self.deals))
        self.scheduler.notifier.send_advance(list(self.tasks))
        self.deals.clear()
        self.tasks.clear()


def follow(scheduler: Scheduler, watcher: Watcher, numbers: Iterable[BlockNumber]) -> None:
    """Read the chain up to each new head and notify pipeline and lane, until `numbers` ends. Raises WrongChain.

    A transient error is logged, and the next head tries again.
    """
    pending = PendingNotifications(scheduler)
    for turn, number in enumerate(numbers):
        try:
            cursor, lane_is_due = scheduler.store.chain.at_head(scheduler.lane.id)
            for caught in watcher.catch_up_from(cursor, number):
                pending.add(caught)
                pending.publish()
            pending.publish()
            if lane_is_due or pending.lane or _lane_settles(scheduler, turn):
                scheduler.notifier.send_lane()
                pending.lane = False
        except TRANSIENT_ERRORS as error:
            log.warning("Cannot follow now, trying again.", action="watch_again", block=number, why=str(error))


def _lane_settles(scheduler: Scheduler, turn: int) -> bool:
    """Whether to run the lane at this head only to check how deep its mined transactions are by now."""
    return turn % SETTLE_HEADS == 0 and scheduler.lane_store.busy(scheduler.lane.id)


def run(settings: Settings, stop: threading.Event) -> None:
    """Follow the chain until `stop` is set.

    Raises WrongChain if it is not the chain of the settings or of the store.
    """
    scheduler = Scheduler.open(settings)
    _wait_until_ready(scheduler, stop)
    rpc, announced = scheduler.hub.rpc, Announced() if asks_who_announces(settings) else None
    watcher = Watcher(
        rpc,
        scheduler.hub,
        scheduler.workerpool,
        scheduler.store.chain,
        LOOKBACK,
        scheduler.store.chain.followed_from(settings.start_block),
        LanePolicy.of(settings).finality,
        announced,
    )
    log.info("Following the chain.", action="watch_started", cursor=scheduler.store.chain.cursor())
    others = [
        threading.Thread(target=body, args=(scheduler, stop), name=name, daemon=True)
        for name, body in (("presence", _follow_machines), ("floods", _cut_off_floods))
    ]
    for thread in others:
        thread.start()
    follow(scheduler, watcher, heads(settings.ws_url, rpc, settings.block_time, stop, announced))
    for thread in others:
        thread.join(STOP_SECONDS)
    scheduler.close()


def _follow_machines(scheduler: Scheduler, stop: threading.Event) -> None:
    """Body of the second thread: if it ends by an error, the process ends, and the supervisor starts it again."""
    notifier = Notifier(scheduler.core, scheduler.key.wallet)

    def assign() -> None:
        """Publish `assign`; a broker that is away is logged."""
        try:
            notifier.send_assign()
        except BrokerUnavailable as error:
            log.warning("Tasks wait for the next sweep.", action="assign_not_sent", why=str(error))

    def keep_orders() -> None:
        """Publish `orders`; a broker that is away is logged."""
        try:
            notifier.send_orders()
        except BrokerUnavailable as error:
            log.warning("Orders wait for the clock.", action="orders_not_sent", why=str(error))

    try:
        vhost, workers = scheduler.settings.amqp_pool_vhost, scheduler.store.workers
        Presence(scheduler.pool, vhost, workers, assign, scheduler.clock, on_change=keep_orders).run(stop)
    finally:
        stop.set()
        notifier.close()


def _cut_off_floods(scheduler: Scheduler, stop: threading.Event) -> None:
    """Body of the third thread: if it ends by an error, the process ends, and the supervisor starts it again."""
    try:
        with BrokerAdmin.from_settings(scheduler.settings) as broker:
            Floods(broker).run(stop)
    finally:
        stop.set()


def _wait_until_ready(scheduler: Scheduler, stop: threading.Event) -> None:
    """Create indexes and check the chain, again at each block time until node and database answer."""
    while not stop.is_set():
        try:
            scheduler.ensure_indexes()
            scheduler.hub.check_chain(scheduler.settings)
        except (RpcUnavailable, PyMongoError) as error:
            log.warning("Cannot start yet.", action="watch_waits", why=str(error))
            stop.wait(scheduler.settings.block_time)
        else:
            return


def main() -> None:
    """Main of the scheduler's process `watch` (`python -m beat.watch`), until SIGTERM or SIGINT."""
    logging.configure(settings(), process="watch")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(with_addresses(settings()), stop)


if __name__ == "__main__":
    main()
