"""A message that is to be tried again waits in RabbitMQ, and comes back to the queue that it came from."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from celery.exceptions import Retry
from kombu.message import Message

import pipeline.tasks  # noqa: F401 - its tasks are found by their names
from config import topology
from config.celery_apps import core_app
from config.processes.per_process import PerProcess
from config.settings import Settings
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.notify import Notifier
from protocol.errors import RpcUnavailable
from protocol.types import Wallet
from tests.waiting import ample

WALLET = Wallet("0x" + "ab" * 20)


def _no_node() -> object:
    raise RpcUnavailable(what="node", why="away")


@pytest.mark.parametrize(
    ("name", "args", "queue"),
    [
        (topology.ADVANCE, [["0x1"]], topology.pipeline_queue()),
        (topology.RUN_LANE, [WALLET], topology.lane_queue(WALLET)),
    ],
)
def test_a_retry_waits_in_its_queue_and_returns_to_the_one_it_came_from(
    name: str, args: list[object], queue: object, api_settings: Settings
) -> None:
    with BrokerAdmin.from_settings(api_settings) as admin:
        admin.prepare()
    app = core_app(api_settings, WALLET)
    app.context = PerProcess(_no_node)
    task = app.tasks[name]
    with app.connection_for_write() as connection:
        own = queue(connection.default_channel)  # type: ignore[operator] # kombu binds a queue by a call
        own.declare()
        own.purge()
        task.push_request(
            id="1", args=args, kwargs={}, called_directly=False, delivery_info={"routing_key": own.routing_key}
        )
        with pytest.raises(Retry):
            task.run(*args)
        task.pop_request()
        got: list[Message] = []
        with connection.Consumer(own, on_message=got.append, no_ack=True):
            # Its time to live is a second.
            connection.drain_events(timeout=ample(5))
        (message,) = got
        assert message.headers["task"] == name
        assert int(message.headers["retries"]) == 1
        assert message.payload[0] == args
        own.delete()
    app.close()


def test_bulk_work_that_is_put_off_comes_back_to_its_queue_once(api_settings: Settings) -> None:
    with BrokerAdmin.from_settings(api_settings) as admin:
        admin.prepare()
    app = core_app(api_settings, WALLET)
    with app.connection_for_write() as connection, closing(Notifier(app, WALLET)) as notifier:
        own = topology.wake_up_queue(topology.BULK_QUEUE)(connection.default_channel)
        own.declare()
        own.purge()
        for _ in range(3):
            notifier.send_bulk_later()
        got: list[Message] = []
        with connection.Consumer(own, on_message=got.append, no_ack=True):
            connection.drain_events(timeout=ample(5))
        (message,) = got
        assert message.headers["task"] == topology.BULK
        channel: Any = connection.default_channel
        assert channel.queue_declare(topology.RETRY_QUEUE, passive=True).message_count == 0
    app.close()
