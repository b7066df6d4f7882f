"""Publishes several messages and waits for the broker's confirmations of all of them together.

One after the other, each message waits for RabbitMQ's answer to the one before: half of the time of a round that gives
out ten tasks (measured: 57 of 126 ms).

    publish 1, 2, 3 … ─► ack 2 (and all before), return of 3 (no queue), ack 3 … ─► what has no ack is not confirmed
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from amqp import Channel
from kombu import Producer

#: Messages that wait for their confirmation at a time: their bytes, a few KB each, are in memory of both sides.
MOST = 100
#: Publishes one message by this producer.
Publish = Callable[[Producer], object]


class Together:
    """A channel of a connection for this; of no use any more once `send` has raised. For one thread at a time."""

    def __init__(self, connection: Any, seconds: float) -> None:
        """Opens the channel of a kombu connection. `seconds`: to wait for the broker's next word, and for all
        confirmations after the last message. Raises one of the connection's errors.
        """
        channel: Any = connection.channel()
        channel.confirm_select()
        # kombu's channel waits for each confirmation in its own; the class's method does not.
        channel.basic_publish = partial(_publish, channel)
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._connection, self._producer, self._seconds = connection, Producer(channel), seconds
        #: Messages published on this channel so far: the broker numbers them from 1.
        self._sent = 0
        #: Numbers of those that were neither confirmed nor refused, and of those that were refused.
        self._open: set[int] = set()
        self._refused: set[int] = set()
        #: Exchange and routing key of each message that came back.
        self._returned: set[tuple[str, str]] = set()

    def send(self, messages: Sequence[Publish]) -> tuple[list[bool], set[tuple[str, str]]]:
        """Publish all; for each whether it is confirmed, and exchange and routing key of those without a queue.

        Raises one of the connection's errors, TimeoutError too: then none of them counts as confirmed.
        """
        self._refused, self._returned = set(), set()
        first = self._sent + 1
        for publish in messages:
            while len(self._open) >= MOST:
                self._wait()
            self._sent += 1
            self._open.add(self._sent)
            publish(self._producer)
        until = time.monotonic() + self._seconds
        while self._open:
            if time.monotonic() > until:
                raise TimeoutError
            self._wait()
        return [number not in self._refused for number in range(first, self._sent + 1)], self._returned

    def _wait(self) -> None:
        """Take what the broker sends next."""
        self._connection.drain_events(timeout=self._seconds)

    def _on_ack(self, number: int, multiple: bool) -> None:
        """The broker has a message; if `multiple`, those before it too."""
        self._open -= {each for each in self._open if each <= number} if multiple else {number}

    def _on_nack(self, number: int, multiple: bool) -> None:
        """The broker does not take a message; if `multiple`, those before it neither."""
        self._refused |= {each for each in self._open if each == number or (multiple and each < number)}
        self._on_ack(number, multiple)

    def _on_return(self, _: object, exchange: str, routing_key: str, __: object) -> None:
        """A message has no queue; it is confirmed all the same."""
        self._returned.add((exchange, routing_key))


def _publish(channel: Any, message: Any, **options: Any) -> None:
    """Publish without waiting for the confirmation. kombu calls it as `basic_publish`."""
    options.pop("confirm_timeout", None)
    Channel.basic_publish(channel, message, **options)
