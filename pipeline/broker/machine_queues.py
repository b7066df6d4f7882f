"""Declares what machines read in vhost `pool`, an exchange and two queues each, over AMQP.

By the management API the same takes RabbitMQ twice the CPU and five requests; here they go out together, and one answer
is waited for. (Its `POST /definitions` makes all of it, and the user, at once, but each such request costs as much as
reading all definitions: 50 ms with a thousand objects, more with more. Measured on RabbitMQ 3.10.)
"""

from __future__ import annotations

from typing import Any

from amqp.exceptions import PreconditionFailed
from celery import Celery

from config import topology
from pipeline.broker.link import BrokerLink
from pipeline.broker.machine_rights import worker_queue_arguments
from protocol.errors import BrokerUnavailable
from protocol.types import Wallet


class MachineQueues:
    """Safe to share between threads: each takes a connection that is idle, or opens one. `app`: of vhost `pool`."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._idle: list[BrokerLink] = []

    def declare(self, wallet: Wallet, *, replicated: bool) -> bool:
        """Declare a machine's exchange and queues. False: it has queues that were declared otherwise, and keeps them.

        Raises BrokerUnavailable.
        """
        try:
            link, used = self._idle.pop(), True
        except IndexError:
            link, used = BrokerLink(self._app), False
        try:
            return _declare(link, wallet, replicated=replicated)
        except BrokerUnavailable as error:
            # It may have been restarted since the connection was used last. A silent one is not asked twice.
            if not used or isinstance(error.__cause__, TimeoutError):
                raise
            return _declare(link, wallet, replicated=replicated)
        finally:
            self._idle.append(link)

    def close(self) -> None:
        """Disconnect; the next machine connects again."""
        while self._idle:
            self._idle.pop().close()


def _declare(link: BrokerLink, wallet: Wallet, *, replicated: bool) -> bool:
    """As `MachineQueues.declare`, over this connection."""
    exchange, tx = topology.compute_queue_name(wallet), topology.tx_queue_name(wallet)
    arguments = worker_queue_arguments(replicated=replicated)
    with link.producer() as producer:
        channel: Any = producer.channel
        try:
            channel.exchange_declare(exchange, "direct", durable=True, auto_delete=False, nowait=True)
            for queue in (exchange, tx):
                channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments, nowait=True)
                # RabbitMQ does one after the other: the answer to the last one is that to all.
                channel.queue_bind(queue, exchange, queue, nowait=queue != tx)
        except PreconditionFailed:
            # The broker has closed the channel with it.
            link.close()
            return False
    return True
