"""The scheduler's Celery tasks: what is retried, and what becomes of a message that RabbitMQ does not take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Task
from celery._state import get_current_app
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from pymongo.errors import ServerSelectionTimeoutError

from config import topology
from config.celery_apps import ConfirmTimeoutCelery, core_app
from config.processes.per_process import PerProcess
from config.settings import Settings
from pipeline import tasks
from pipeline.broker.link import BrokerLink
from pipeline.broker.notify import LATER_SECONDS, Notifier
from pipeline.flow import assign
from pipeline.flow.orders.actions import TURN_ENDS
from pipeline.flow.orders.market_api import SILENT_SECONDS, TURN_SECONDS
from protocol.errors import BadMessage, BrokerUnavailable, RpcUnavailable
from protocol.types import Wallet

WALLET = Wallet("0x" + "a1" * 20)
AWAY = [
    ServerSelectionTimeoutError("away"),
    BrokerUnavailable(what="broker", why="away"),
    RpcUnavailable(what="node", why="away"),
]


def _app(error: Exception) -> ConfirmTimeoutCelery:
    """An app whose tasks fail with `error`."""

    def fail() -> object:
        raise error

    app = core_app(Settings())
    app.context = PerProcess(fail)
    return app


@contextmanager
def _received(
    task: Task[Any, Any], *args: object, retries: int = 0, headers: dict[str, Any] | None = None
) -> Iterator[None]:
    """As if a worker had received the task."""
    task.push_request(
        id="1",
        args=args,
        kwargs={},
        retries=retries,
        called_directly=False,
        delivery_info={"routing_key": topology.PIPELINE_QUEUE},
        **(headers or {}),
    )
    try:
        yield
    finally:
        task.pop_request()


def _sent(monkeypatch: pytest.MonkeyPatch, app: ConfirmTimeoutCelery) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(app, "send_task", lambda name, *args, **options: sent.append({"name": name, **options}))
    return sent


@pytest.mark.parametrize("error", AWAY)
def test_a_task_that_finds_a_server_away_waits_at_the_broker(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    app = _app(error)
    sent = _sent(monkeypatch, app)
    task = app.tasks[topology.ADVANCE]
    for retries, seconds in enumerate((1, 2, 4, 8, 8, 8)):
        with _received(task, [], retries=retries), pytest.raises(Retry):
            task.run([])
        message = sent.pop()
        assert message["exchange"] == "sluice.retry"
        assert message["routing_key"] == "pipeline"
        assert (message["expiration"], message["countdown"]) == (seconds, 0)
        assert message["retries"] == retries + 1
    with _received(task, [], retries=tasks.RETRIES), pytest.raises(type(error)):
        task.run([])
    assert not sent


@pytest.mark.parametrize("name", [topology.SWEEP, topology.ADVANCE])
@pytest.mark.parametrize("error", [BadMessage(what="a row", why="odd"), SoftTimeLimitExceeded(), AWAY[0]])
def test_what_no_retry_repairs_and_what_the_clock_repeats_is_not_retried(
    name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = _app(error)
    sent = _sent(monkeypatch, app)
    task = app.tasks[name]
    args: tuple[object, ...] = ([],) if name == topology.ADVANCE else ()
    retried = error is AWAY[0] and name == topology.ADVANCE
    with _received(task, *args), pytest.raises(Retry if retried else type(error)):
        task.run(*args)
    assert bool(sent) == retried


def test_a_message_goes_back_to_its_queue_if_the_broker_does_not_take_its_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = _app(AWAY[0])
    task = app.tasks[topology.ADVANCE]

    def refuse(*_: object, **__: object) -> None:
        raise TimeoutError("not confirmed")

    monkeypatch.setattr(app, "send_task", refuse)
    with _received(task, []), pytest.raises(Reject) as rejected:
        task.run([])
    assert "requeue=True" in repr(rejected.value)


def test_every_task_of_the_scheduler_has_limits_below_rabbitmqs_and_a_queue() -> None:
    app = core_app(Settings())
    own = {name: task for name, task in app.tasks.items() if name.startswith(("pipeline.", "lane."))}
    assert set(own) == {*topology.PIPELINE_ROUTES, topology.RUN_LANE}
    # RabbitMQ takes a message back after 30 minutes.
    assert all(0 < (task.soft_time_limit or 0) < (task.time_limit or 0) < 1800 for task in own.values())


def test_a_run_that_asks_markets_has_less_time_than_its_turn() -> None:
    task = core_app(Settings()).tasks[topology.ORDERS]
    assert 2 * TURN_SECONDS + SILENT_SECONDS < (task.soft_time_limit or 0) < (task.time_limit or 0) < TURN_ENDS


def test_tasks_are_importable_objects_that_publish_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    app = core_app(Settings())
    sent = _sent(monkeypatch, app)
    before = get_current_app()
    app.set_current()
    try:
        tasks.run_lane.delay("0x" + "ab" * 20)
    finally:
        before.set_current()
    assert [(message["name"]) for message in sent] == [topology.RUN_LANE]


@pytest.mark.parametrize("freed", [True, False])
def test_that_slots_were_freed_is_told_beside_the_arguments_which_a_release_that_takes_none_refuses(
    monkeypatch: pytest.MonkeyPatch, *, freed: bool
) -> None:
    app, asked = core_app(Settings()), list[bool]()
    app.context = PerProcess(lambda: None)
    sent = _sent(monkeypatch, app)
    monkeypatch.setattr(BrokerLink, "producer", lambda _: nullcontext())
    monkeypatch.setattr(assign, "assign", lambda _, check_unfunded: asked.append(check_unfunded))

    Notifier(app, WALLET).send_assign(freed=freed)
    (message,) = sent
    assert message["args"] == ()
    task = app.tasks[topology.ASSIGN]
    with _received(task, headers=message["headers"]):
        task.run()
    assert asked == [not freed]


def test_bulk_work_that_is_put_off_is_on_its_way_once_and_waits_at_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    app: Any = SimpleNamespace(send_task=lambda name, **options: sent.append({"name": name, **options}))
    monkeypatch.setattr(BrokerLink, "producer", lambda _: nullcontext())
    notifier = Notifier(app, WALLET)
    for _ in range(3):
        notifier.send_bulk_later()
    (message,) = sent
    assert message["name"] == topology.BULK
    assert (message["exchange"], message["routing_key"]) == (topology.RETRY_EXCHANGE.name, topology.BULK_QUEUE)
    assert message["expiration"] == LATER_SECONDS
    notifier._bulk_at -= LATER_SECONDS
    notifier.send_bulk_later()
    assert len(sent) == 2, "again once the first has come"
