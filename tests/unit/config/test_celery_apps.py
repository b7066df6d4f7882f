"""The Celery apps: where each task goes."""

from __future__ import annotations

import bz2
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from kombu.message import Message

from config import celery_apps, topology
from config.celery_apps import EVENT_SECONDS, CoreConsumer, core_app, machine_app, pool_app
from config.settings import Settings
from protocol.types import Wallet

WALLET = Wallet("0x" + "ab" * 20)


def _goes_to(app: Celery, name: str, *args: object) -> tuple[str, str]:
    """(exchange, routing key) that Celery would publish a task with."""
    queue = app.amqp.router.route({}, name, args)["queue"]
    return queue.exchange.name, queue.routing_key


@pytest.mark.parametrize(
    ("name", "queue"),
    [
        (topology.INGEST_DEALS, "pipeline"),
        (topology.ADVANCE, "pipeline"),
        (topology.ASSIGN, "pipeline"),
        (topology.SWEEP, "pipeline.sweep"),
        (topology.BULK, "pipeline.bulk"),
        (topology.ORDERS, "pipeline.orders"),
    ],
)
@pytest.mark.parametrize("wallet", [None, WALLET])
def test_each_task_of_the_scheduler_is_routed_to_its_queue(name: str, queue: str, wallet: Wallet | None) -> None:
    assert _goes_to(core_app(Settings(), wallet), name) == ("sluice", queue)


@pytest.mark.parametrize("wallet", [None, WALLET])
def test_a_run_of_a_lane_is_routed_to_the_queue_of_its_wallet_from_every_process(wallet: Wallet | None) -> None:
    assert _goes_to(core_app(Settings(), wallet), topology.RUN_LANE, WALLET) == ("sluice", f"lane.{WALLET}")


@pytest.mark.parametrize(
    ("compress", "name"),
    [(zlib.compress, "zlib"), (zlib.compress, "gzip"), (bz2.compress, "bzip2"), (bz2.compress, "application/x-bz2")],
)
def test_a_compressed_message_is_not_unpacked(compress: Callable[[bytes], bytes], name: str) -> None:
    packed: Any = compress(b"0" * 2**20)
    message: Any = Message(body=packed, headers={"compression": name}, content_type="application/json")
    assert message.body == packed
    with pytest.raises(ValueError, match="compressed"):
        message._reraise_error()


class _Watched(list[str]):
    """A module search path that counts the changes made to it in place."""

    changes = 0

    def insert(self, *args: Any) -> None:
        self.changes += 1
        super().insert(*args)

    def remove(self, *args: Any) -> None:
        self.changes += 1
        super().remove(*args)


def test_no_app_changes_the_module_path_under_another_threads_import(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    watched = _Watched(sys.path)
    monkeypatch.setattr(sys, "path", watched)
    for app in (core_app(Settings()), pool_app(Settings()), machine_app(WALLET)):
        app.loader.import_default_modules()
        app.finalize()
        assert app.conf.task_acks_late
        assert app.Worker is not None
    assert watched.changes == 0


def test_celerys_events_of_a_while_go_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[float] = []
    consumer = CoreConsumer.__new__(CoreConsumer)
    consumer.hub = SimpleNamespace(call_later=lambda seconds, _: planned.append(seconds))
    now = 100.0
    monkeypatch.setattr(celery_apps, "time", SimpleNamespace(monotonic=lambda: now))
    consumer.on_send_event_buffered()
    consumer.on_send_event_buffered()
    assert planned == [EVENT_SECONDS]
    now += EVENT_SECONDS
    consumer.on_send_event_buffered()
    assert planned == [EVENT_SECONDS] * 2
