"""What a scheduler writes while it works, on a real MongoDB: rows of other clocks, leases by the server's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pymongo.database import Database

from chain.lane.model.intent import LaneId
from chain.lane.store.mongo import MongoStore
from config.celery_apps import core_app
from config.connections.mongodb import client
from config.settings import Settings, read_settings
from config.topology import lane_queue
from ops.at_work import require_no_consumer, require_stopped
from ops.stack.stack import Stack
from pipeline.domain.records import CLOCKS_APART
from pipeline.store.database.activity import Activity
from pipeline.store.sweeps import Sweeps
from protocol.errors import NotPossible
from protocol.types import Wallet
from tests.integration.conftest import given

WALLET = Wallet("0x" + "ab" * 20)
LANE = LaneId(31337, WALLET)


@pytest.fixture
def db(stack: Stack, emptied_database: str) -> Database[dict[str, Any]]:
    """An empty database."""
    return client(stack.settings["SLUICE_MONGODB_URI"])[emptied_database]


def require_stopped_beside(activity: Activity, settings: Settings, step: Callable[[], object]) -> None:
    """`require_stopped` while another host does this between any two looks."""

    def sleep(_: float) -> None:
        step()

    require_stopped(activity, settings, [], sleep=sleep)


@pytest.mark.parametrize("behind", [3600.0, -3600.0, CLOCKS_APART - 1])
def test_sweeps_of_a_host_with_another_clock_are_seen(db: Database[dict[str, Any]], behind: float) -> None:
    sweeps, before = Sweeps(db), 2_000_000_000.0
    sweeps.record(before, heard=True, last_after=0.0)
    with pytest.raises(NotPossible, match="It writes sweep in `cursors`"):
        require_stopped_beside(
            Activity(db), read_settings(), lambda: sweeps.record(before - behind, heard=True, last_after=0.0)
        )


def test_a_host_with_only_lanes_is_seen_by_its_lease(db: Database[dict[str, Any]]) -> None:
    store = MongoStore(db)
    lease = store.take_lease(LANE, "elsewhere|1|2|3|4", 3.0)
    assert lease is not None
    activity = Activity(db)
    assert 0.0 < activity.leases_end_in() <= 3.0
    assert activity.wallets() == [WALLET]
    quick = read_settings(sweep_seconds=0.1)
    with pytest.raises(NotPossible, match=f"It writes lane:{LANE} in `cursors`"):
        require_stopped_beside(activity, quick, lambda: store.renew_lease(lease, 3.0))
    store.give_back(lease)
    assert activity.leases_end_in() == 0.0
    require_stopped(activity, quick, [])


def test_a_lane_that_only_waits_for_messages_is_seen_at_rabbitmq(stack: Stack, vhosts: tuple[str, str]) -> None:
    settings = read_settings(**(given(stack.settings) | {"amqp_core_vhost": vhosts[0]}))
    require_no_consumer(settings, [WALLET])
    with core_app(settings).connection_for_write() as connection:
        channel: Any = connection.channel()
        queue: Any = lane_queue(WALLET).bind(channel)
        queue.declare()
        require_no_consumer(settings, [WALLET])
        queue.consume("lane", callback=lambda _: None)
        with pytest.raises(NotPossible, match=f"RabbitMQ has a consumer of the queue {queue.name}"):
            require_no_consumer(settings, [Wallet("0x" + "cd" * 20), WALLET])
    # Where RabbitMQ does not answer, it says nothing.
    require_no_consumer(read_settings(amqp_url="amqp://127.0.0.1:1"), [WALLET])
