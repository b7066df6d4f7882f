"""One long-lived publishing connection to RabbitMQ, for one background thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import AMQPError
from celery import Celery
from kombu import Producer
from kombu.exceptions import KombuError, OperationalError

from config.celery_apps import CONFIRM_SECONDS
from pipeline.broker.together import Together
from protocol.errors import BrokerUnavailable

#: Errors of a connection to RabbitMQ, of each layer: socket, AMQP, kombu.
BROKER_ERRORS = (OSError, AMQPError, KombuError)
#: Seconds to wait for the broker to take a new connection.
CONNECT_SECONDS = 5


#: Seconds to wait for the broker's confirmation, or until it reads what is sent: a broker that blocks publishers (an
#: alarm) or is frozen does neither. More than a loaded broker takes, less than a task can lose without harm.
ANSWER_SECONDS = CONFIRM_SECONDS


class _Producer(Producer):
    """A producer that does not publish again what was not confirmed in time: the second wait would be as long."""

    def _publish(self, *args: Any, **kwargs: Any) -> Any:
        """Publish once; a confirmation that does not come in time is an error of the broker."""
        # What `publish` calls inside its retries, which are for a broker that restarts.
        try:
            return super()._publish(*args, **kwargs)
        except TimeoutError as error:
            raise OperationalError(f"not confirmed within {ANSWER_SECONDS:g} s") from error


class BrokerLink:
    """Connects when first used, and again after a failure. Not for several threads at a time."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._producer: Producer | None = None
        self._together: Together | None = None

    @contextmanager
    def producer(self) -> Iterator[Producer]:
        """A producer for the block; any failure of the broker inside it is raised as BrokerUnavailable."""
        try:
            if self._producer is None:
                # No AMQP heartbeat: while the thread waits it would not be sent, and the broker would disconnect.
                connection = self._app.connection_for_write(
                    heartbeat=0,
                    # Not for consumers, which may wait for hours: here every read is the answer to a request.
                    transport_options={"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS},
                )
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_SECONDS)
                self._producer = _Producer(connection)
            yield self._producer
        except BROKER_ERRORS as error:
            self.close()
            why = str(error) or type(error).__name__
            raise BrokerUnavailable(what=self._app.connection_for_write().as_uri(), why=why) from error

    @contextmanager
    def together(self) -> Iterator[Together]:
        """What publishes several messages at once, for the block. Raises BrokerUnavailable.

        After an error the connection stays, unless the broker is silent: `producer` publishes again for as long as a
        restart of the broker takes.
        """
        with self.producer() as producer:
            # One that has failed is of no use any more.
            together, self._together = self._together, None
            try:
                together = together or Together(producer.connection, ANSWER_SECONDS)
                yield together
            except TimeoutError:
                raise
            except BROKER_ERRORS as error:
                raise BrokerUnavailable(what=self._app.connection_for_write().as_uri(), why=str(error)) from error
            self._together = together

    def close(self) -> None:
        """Disconnect; the next use connects again."""
        self._together = None
        producer, self._producer = self._producer, None
        if producer is not None and producer.connection is not None:
            producer.connection.collect()
