"""Messages that failed for good: shown, delivered again and removed by the operator, on a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from amqp import Message

from config import topology
from config.celery_apps import core_app
from tests.integration.api.conftest import Api
from tests.waiting import wait_until


def die(api: Api, *arguments: str) -> None:
    """Have a message for each argument fail for good in the scheduler's main queue; the first one was tried again by
    way of the queue of retries before, whose name RabbitMQ keeps as that of its first death.
    """
    app = core_app(api.settings)
    with app.connection_for_write() as connection:
        channel: Any = connection.channel()
        topology.pipeline_queue()(channel).declare()
        # Signing in and undraining have others published.
        channel.queue_purge(topology.PIPELINE_QUEUE)
        for argument in arguments:
            app.send_task(topology.ADVANCE, args=([argument],), connection=connection)

            def message() -> Any:
                return channel.basic_get(topology.PIPELINE_QUEUE)

            found = wait_until(message, 10, what="the message")
            if argument == arguments[0]:
                topology.retry_queue()(channel).declare()
                again = Message(found.body, **(found.properties | {"expiration": "1"}))
                channel.basic_publish(again, topology.RETRY_EXCHANGE.name, topology.PIPELINE_QUEUE)
                channel.basic_ack(found.delivery_tag)
                found = wait_until(message, 10, what="the message once more")
            channel.basic_reject(found.delivery_tag, requeue=False)


@pytest.fixture
def _emptied_queues(api: Api) -> Iterator[None]:
    yield
    with core_app(api.settings).connection_for_write() as connection:
        channel: Any = connection.channel()
        for queue in (topology.PIPELINE_QUEUE, topology.DEAD_QUEUE):
            channel.queue_purge(queue)


@pytest.mark.usefixtures("_emptied_queues")
def test_dead_letters_are_shown_delivered_again_and_removed(api: Api, sluice: Callable[..., tuple[int, Any]]) -> None:
    assert sluice("dead", "ls", "--json") == (0, [])
    die(api, "first", "second", "third")

    def listed() -> Any:
        found = sluice("dead", "ls", "--json")[1]
        return found if len(found) == 3 else None

    found = wait_until(listed, 10, what="three dead letters")
    assert [(item["task"], item["queue"], item["reason"]) for item in found] == [
        (topology.ADVANCE, topology.PIPELINE_QUEUE, "rejected")
    ] * 3
    assert all(item["died_at"] for item in found)
    first, second, third = (item["id"] for item in found)
    assert sluice("dead", "ls", "--json") == (1, found), "a look leaves all in place, in their order"
    for _ in range(20):
        assert "second" in sluice("dead", "show", second)[1], "it is back as soon as somebody has looked"
    assert sluice("dead", "retry", second, "--dry-run", "--json")[1]["messages"] == [second]
    assert len(sluice("dead", "ls", "--json")[1]) == 3
    assert sluice("dead", "retry", second, "--json")[1]["messages"] == [second]
    with core_app(api.settings).connection_for_write() as connection:
        channel: Any = connection.channel()
        again = wait_until(lambda: channel.basic_get(topology.PIPELINE_QUEUE), 10, what="the message")
    assert again.headers["id"] == second
    assert "x-death" not in again.headers
    assert sluice("dead", "drop", first, "--json")[1]["messages"] == [first]
    assert [item["id"] for item in sluice("dead", "ls", "--json")[1]] == [third]
    assert sluice("dead", "drop", "no-such-id")[0] == 2
    assert sluice("dead", "drop")[0] == 2, "neither ids nor --all"
    assert sluice("dead", "drop", "--all", "--json")[1]["messages"] == [third]
    assert sluice("dead", "ls")[0] == 0
