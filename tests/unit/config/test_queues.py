"""Which queues a Celery worker of the scheduler consumes."""

from __future__ import annotations

import pytest

from config import topology
from config.celery_apps import core_app
from config.settings import Settings
from protocol.types import Wallet

WALLET = Wallet("0x" + "ab" * 20)


@pytest.mark.parametrize("wallet", [None, WALLET])
def test_a_celery_worker_without_queues_takes_neither_dead_letters_nor_a_lane(wallet: Wallet | None) -> None:
    app = core_app(Settings(), wallet)
    # As `celery worker` without `-Q` does.
    app.select_queues(None)
    assert set(app.amqp.queues.consume_from) == set(topology.PIPELINE_QUEUES)
    assert topology.DEAD_QUEUE in app.amqp.queues, "it is declared all the same"


def test_a_lane_is_consumed_by_a_worker_that_names_it() -> None:
    app, lane = core_app(Settings(), WALLET), topology.lane_queue_name(WALLET)
    app.select_queues([lane])
    assert list(app.amqp.queues.consume_from) == [lane]
