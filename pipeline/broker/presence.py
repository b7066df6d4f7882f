"""Which worker machines are connected to RabbitMQ, by its own events: known within milliseconds of a cut.

    a machine's connection is cut   ─► consumer.deleted ─► has its queue a consumer left? no ─► it gets no new task
    it connects again               ─► consumer.created ─► yes                               ─► it gets tasks again

Machines open and close connections all the time, so an event says only whose queue to look at, once for all events of
LOOK_SECONDS. Events come from RabbitMQ's plugin rabbitmq_event_exchange. Without it nothing is marked, and a machine
gets no new task once its pings have stopped (SLUICE_WORKER_LOST_SECONDS). Events may be lost: all machines are looked
at when they are followed again, and a ping outweighs a mark that is old (`pipeline.store.machine.workers`). What cut
this process off has often cut off the machines too: those that are not back yet then are looked at once more, before
they are marked and the pool withdraws what it offers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from amqp.exceptions import AccessRefused, NotAllowed, NotFound
from celery import Celery
from pymongo.errors import PyMongoError

from config.connections.broker_nodes import with_vhost
from config.topology import compute_queue_name, wallet_of_queue
from pipeline.broker.link import BROKER_ERRORS, CONNECT_SECONDS, BrokerLink
from pipeline.store.machine.workers import Workers
from protocol.errors import BrokerUnavailable
from protocol.types import Wallet

log = structlog.get_logger(__name__)

#: The plugin's name, and where it publishes.
PLUGIN, EXCHANGE, VHOST = "rabbitmq_event_exchange", "amq.rabbitmq.event", "/"
EVENTS = ("consumer.created", "consumer.deleted", "queue.deleted")
#: Seconds within which a machine's queue is looked at once, however often its owner makes and cancels consumers.
LOOK_SECONDS = 0.5
#: Events read at once, and held by RabbitMQ for us; beyond that the oldest are dropped.
BATCH, HELD = 1000, 20_000
#: Seconds of AMQP heartbeat: a connection that is dead without being closed is noticed after two of them.
HEARTBEAT_SECONDS = 10
#: Longest wait for an event (s): heartbeats are sent in between.
WAIT_SECONDS = 1.0
#: Seconds until the next try after RabbitMQ was away, and after the plugin was not there.
RETRY_SECONDS, ABSENT_SECONDS = 1.0, 60.0
#: Seconds from the first check of a machine after the events are followed (again) to the second: a machine tries to
#: connect again every 30 s at least.
SECOND_LOOK_SECONDS = 40.0
#: Machines that are checked once the events are followed (again): 0.4 ms each.
MACHINES = 10_000


class Presence:
    """Marks machines as connected or not, in one thread of its own. `vhost`: of the machines' queues.

    `on_return`: called when machines are connected again, since tasks may wait for them. `on_change`: called then, and
    when machines are cut off.
    """

    def __init__(
        self,
        pool: Celery,
        vhost: str,
        workers: Workers,
        on_return: Callable[[], object],
        clock: Callable[[], float] = time.time,
        *,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        self._pool, self._vhost, self._workers = pool, vhost, workers
        self._on_return, self._on_change, self._clock = on_return, on_change, clock
        self._link = BrokerLink(pool)
        #: Machines to check, and when each was last checked, by the monotonic clock.
        self._due: set[Wallet] = set()
        self._looked: dict[Wallet, float] = {}
        #: Machines not looked at yet since the events are followed, and when those that had no consumer then are looked
        #: at again, by the monotonic clock.
        self._unsure: set[Wallet] = set()
        self._again: dict[Wallet, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Follow the events until `stop` is set."""
        absent = False
        while not stop.is_set():
            pause = RETRY_SECONDS
            try:
                self._follow(stop)
            except (NotFound, AccessRefused, NotAllowed) as error:
                if not absent:
                    log.warning(
                        f"RabbitMQ does not tell when machines are cut off ({PLUGIN}), so that is noticed by their"
                        " pings only.",
                        action="presence_by_pings",
                        why=str(error),
                        fix=f"rabbitmq-plugins enable {PLUGIN}; its exchange must be readable in virtual host {VHOST}.",
                    )
                absent, pause = True, ABSENT_SECONDS
            except (*BROKER_ERRORS, BrokerUnavailable, PyMongoError) as error:
                log.warning("Not following RabbitMQ's events, trying again.", action="presence_again", why=str(error))
            self._link.close()
            stop.wait(pause)

    def _follow(self, stop: threading.Event) -> None:
        """Read events until `stop` is set. Raises one of BROKER_ERRORS, BrokerUnavailable, PyMongoError."""
        nodes = with_vhost(self._pool.conf.broker_read_url, VHOST)
        with self._pool.connection_for_read(nodes, heartbeat=HEARTBEAT_SECONDS) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_SECONDS)
            channel: Any = connection.default_channel
            held = {"x-max-length": HELD}
            queue = channel.queue_declare("", exclusive=True, auto_delete=True, arguments=held).queue
            for event in EVENTS:
                channel.queue_bind(queue, EXCHANGE, event)
            channel.basic_consume(queue, no_ack=True, callback=self._note)
            log.info("Following RabbitMQ's events about machines.", action="presence_followed")
            self._begin()
            while not stop.is_set():
                self._read(connection)
                connection.heartbeat_check()
                self._look()

    def _begin(self) -> None:
        """Have all machines checked: what happened to them before the events were followed is not known."""
        self._unsure, self._again = set(self._workers.present(MACHINES)), {}
        self._due.update(self._unsure)

    def _read(self, connection: Any) -> None:
        """Wait for events, and take at most BATCH."""
        wait = LOOK_SECONDS if self._due else WAIT_SECONDS
        try:
            for _ in range(BATCH):
                connection.drain_events(timeout=wait)
                wait = 0
        except TimeoutError:
            pass

    def _note(self, message: Any) -> None:
        """Note whose queue an event is about, if it is a machine's of this pool."""
        told = message.headers or {}
        # An event about a consumer names its queue so, one about a queue has its `name`.
        queue, vhost = told.get("queue", told.get("name")), told.get("vhost")
        # Only the queue for work: what comes in its other queue, a machine does without a message too.
        if vhost == self._vhost and isinstance(queue, str) and (wallet := wallet_of_queue(queue)) is not None:
            self._due.add(wallet)

    def _look(self) -> None:
        """Check the queues that are due, and mark their machines as connected or not."""
        now = time.monotonic()
        self._looked = {wallet: at for wallet, at in self._looked.items() if now - at < LOOK_SECONDS}
        self._due.update(wallet for wallet, at in self._again.items() if now >= at)
        wallets = self._due - self._looked.keys()
        if not wallets:
            return
        connected = self._connected(wallets)
        unconfirmed = {wallet for wallet in wallets & self._unsure if not connected[wallet]}
        self._unsure -= wallets
        self._again = {wallet: at for wallet, at in self._again.items() if wallet not in wallets}
        self._again.update(dict.fromkeys(unconfirmed, now + SECOND_LOOK_SECONDS))
        certain = {wallet: here for wallet, here in connected.items() if wallet not in unconfirmed}
        gone, returned = self._workers.mark_connected(certain, self._clock())
        self._due -= wallets
        self._looked.update(dict.fromkeys(wallets, now))
        if returned:
            self._on_return()
        if gone or returned:
            self._on_change()

    def _connected(self, wallets: Iterable[Wallet]) -> dict[Wallet, bool]:
        """For each machine, whether its queue has a consumer. Raises BrokerUnavailable."""
        found = {}
        for wallet in wallets:
            with self._link.producer() as producer:
                channel: Any = producer.channel
                try:
                    found[wallet] = channel.queue_declare(compute_queue_name(wallet), passive=True).consumer_count > 0
                except NotFound:
                    # The queue is gone; the broker has closed the channel.
                    found[wallet] = False
                    self._link.close()
        return found
