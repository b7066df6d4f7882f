"""Messages in the queue `dead`: what was delivered too often without success, for the operator to inspect.

    get without acknowledging ─┬─ list:   close the channel, and RabbitMQ puts all back before it answers
                               ├─ retry:  publish to the queue that it came from, confirmed ─► acknowledge
                               └─ drop:   acknowledge

A crash between publishing and acknowledging leaves a message in both queues: the scheduler's tasks may run twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from amqp import Message
from celery import Celery

from config import topology
from pipeline.broker.link import BrokerLink
from protocol.types import Wallet

#: Characters of a message's arguments that are shown.
SHOWN = 2000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message. `died_at`: Unix seconds, None if RabbitMQ does not say."""

    id: str
    task: str
    arguments: str
    #: The queue from which no delivery succeeded.
    queue: str
    reason: str
    died_at: float | None


class DeadLetters:
    """The queue `dead` of one pool. All methods raise BrokerUnavailable."""

    def __init__(self, app: Celery, wallet: Wallet) -> None:
        """`app`: of vhost core; `wallet`: the scheduler's."""
        self._app = app
        self._queues = {*topology.PIPELINE_QUEUES, topology.lane_queue_name(wallet)}

    def oldest(self, limit: int) -> list[DeadLetter]:
        """Up to `limit` messages, those that came first first; all stay in the queue."""
        return self._each(limit, lambda *_: None)

    def retry(self, ids: Collection[str] | None, limit: int) -> list[DeadLetter]:
        """Publish messages to the queues that they came from; None: all, up to `limit`. Those of other queues stay."""

        def publish(channel: Any, message: Any, letter: DeadLetter) -> bool:
            """Publish a message to the queue that it came from and remove it from the dead letters; False for a queue
            of others.
            """
            if letter.queue not in self._queues:
                return False
            headers = {name: value for name, value in _headers(message).items() if not name.startswith("x-")}
            again = Message(message.body, **{**message.properties, "application_headers": headers})
            channel.basic_publish_confirm(again, topology.CORE_EXCHANGE.name, letter.queue, mandatory=True)
            channel.basic_ack(message.delivery_tag)
            return True

        return self._each(limit, publish, ids)

    def drop(self, ids: Collection[str] | None, limit: int) -> list[DeadLetter]:
        """Remove messages; None: all, up to `limit`."""

        def acknowledge(channel: Any, message: Any, _: DeadLetter) -> bool:
            """Remove a message from the dead letters."""
            channel.basic_ack(message.delivery_tag)
            return True

        return self._each(limit, acknowledge, ids)

    def _each(
        self,
        limit: int,
        act: Callable[[Any, Any, DeadLetter], bool | None],
        ids: Collection[str] | None = None,
    ) -> list[DeadLetter]:
        """Call `act` for each of the first `limit` messages with one of these ids (None: any id); returns the messages
        that it handled, which is all but those for which it returned False.
        """
        link = BrokerLink(self._app)
        try:
            with link.producer() as producer:
                channel: Any = producer.channel
                done = []
                for message in _messages(channel, limit):
                    letter = _letter(message)
                    if (ids is None or letter.id in ids) and act(channel, message, letter) is not False:
                        done.append(letter)
                # Whoever looks next finds the others: after a mere disconnection they come back a moment later.
                channel.close()
                return done
        finally:
            link.close()


def _messages(channel: Any, limit: int) -> Iterator[Any]:
    """Messages of the queue of dead letters, unacknowledged, at most `limit`."""
    for _ in range(limit):
        message = channel.basic_get(topology.DEAD_QUEUE, no_ack=False)
        if message is None:
            return
        yield message


def _headers(message: Any) -> dict[str, Any]:
    """A message's headers."""
    return dict(message.properties.get("application_headers") or {})


def _letter(message: Any) -> DeadLetter:
    """A dead letter from a message's headers and body, any of which its publisher may have left out."""
    headers = _headers(message)
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    died_at = last.get("time")
    return DeadLetter(
        id=str(headers.get("id") or message.properties.get("correlation_id") or _hash(message.body)),
        task=str(headers.get("task") or "?"),
        arguments=str(headers.get("argsrepr") or _text(message.body))[:SHOWN],
        # The newest death comes first. A message that was once tried again died in the queue of retries before that.
        queue=str(last.get("queue") or headers.get("x-first-death-queue") or "?"),
        reason=str(last.get("reason") or headers.get("x-first-death-reason") or "?"),
        died_at=died_at.timestamp() if isinstance(died_at, datetime) else None,
    )


def _hash(body: str | bytes) -> str:
    """An id for a message without one: the same each time it is read."""
    return hashlib.sha256(body.encode() if isinstance(body, str) else body).hexdigest()[:32]


def _text(body: str | bytes) -> str:
    """A message's body as text."""
    return body.decode(errors="replace") if isinstance(body, bytes) else body
