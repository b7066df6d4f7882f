"""Whether a queue has a consumer, asked of RabbitMQ itself (its management statistics lag by seconds)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amqp.exceptions import NotFound
from kombu import Connection

from config.connections.broker_nodes import with_vhost


def all_consumed(amqp_url: str, vhost: str, queues: Sequence[str]) -> bool:
    """Whether each of `queues` exists and has a consumer. `amqp_url`: without a virtual host."""
    with Connection(with_vhost(amqp_url, vhost)) as connection:
        for queue in queues:
            channel: Any = connection.channel()
            try:
                if channel.queue_declare(queue, passive=True).consumer_count == 0:
                    return False
            except NotFound:
                return False
    return True
