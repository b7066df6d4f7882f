"""The Celery apps: where each task goes."""

from __future__ import annotations

import pytest
from celery import Celery

from config import topology, worker_chains
from config.celery_apps import core_app, pool_app
from config.settings import Settings
from protocol.types import TaskId, Wallet
from protocol.wire import Mode

WALLET = Wallet("0x" + "ab" * 20)
TASK = TaskId("0x" + "cd" * 32)


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
    ],
)
@pytest.mark.parametrize("wallet", [None, WALLET])
def test_each_task_of_the_scheduler_is_routed_to_its_queue(name: str, queue: str, wallet: Wallet | None) -> None:
    assert _goes_to(core_app(Settings(), wallet), name) == ("sluice", queue)


@pytest.mark.parametrize("wallet", [None, WALLET])
def test_a_run_of_a_lane_is_routed_to_the_queue_of_its_wallet_whoever_publishes_it(wallet: Wallet | None) -> None:
    assert _goes_to(core_app(Settings(), wallet), topology.RUN_LANE, WALLET) == ("sluice", f"lane.{WALLET}")


@pytest.mark.parametrize(
    ("mode", "first", "expected"),
    [
        (Mode.VOTE, topology.CONTRIBUTE, [("worker.contribute", ".tx")]),
        (Mode.SOLO, topology.UPLOAD, [("worker.upload", ""), ("worker.contribute_and_finalize", ".tx")]),
        (Mode.SOLO, topology.CONTRIBUTE_AND_FINALIZE, [("worker.contribute_and_finalize", ".tx")]),
    ],
)
def test_the_rest_of_a_chain_begins_with_the_task_id(mode: Mode, first: str, expected: list[tuple[str, str]]) -> None:
    links = worker_chains.rest(pool_app(Settings()), WALLET, TASK, mode, first)
    found = [(link.task, link.options["routing_key"].removeprefix(f"w.{WALLET}")) for link in links]
    assert found == expected
    assert [link.args for link in links] == [(TASK,), *((),) * (len(links) - 1)]
    assert {link.options["exchange"] for link in links} == {f"w.{WALLET}"}
