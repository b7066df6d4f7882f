"""Flower and RabbitMQ's management, as an operator finds them beside a pool that has just worked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from bench.rig.bench_pool import BenchPool
from config import topology
from protocol.poco.view import TaskStatus
from tests.integration.pool.conftest import HONEST
from tests.waiting import ample, wait_until

#: Seconds for Flower to have heard of a step.
SECONDS = 30.0
#: Steps of a vote (trust 3) and of a task without one (trust 1).
STEPS = {
    "compute",
    "contribute",
    "reveal",
    "upload",
    "contribute_and_finalize",
}


@pytest.fixture(scope="module")
def worked(shared_pool: BenchPool) -> BenchPool:
    """The shared pool after a vote and some tasks without one."""
    wait_until(lambda: _flower(shared_pool, "/workers?json=1") is not None, SECONDS, what="Flower")
    deals = [shared_pool.buy(trust=3, volume=1), shared_pool.buy(trust=1, volume=3)]
    assert {view.status for view in shared_pool.wait(deals).values()} == {TaskStatus.COMPLETED}
    return shared_pool


def test_flower_shows_every_machine_as_online(worked: BenchPool) -> None:
    machines = {topology.compute_queue_name(wallet.key.wallet) for wallet in _machines(worked)}

    def missing() -> set[str]:
        rows = (_flower(worked, "/workers?json=1") or {})["data"]
        return machines - {row["hostname"] for row in rows if row["status"]}

    wait_until(lambda: not missing(), SECONDS, what="all machines in Flower")


def test_flower_shows_what_machines_and_scheduler_did(worked: BenchPool) -> None:
    def seen() -> set[tuple[str, bool]]:
        return {
            (task["name"], task["worker"].startswith("w.0x")) for task in _taken(worked) if task["state"] == "SUCCESS"
        }

    own = {("assign", False), ("finalize", False), ("pipeline.advance", False), ("lane.run", False)}
    wanted = {(step, True) for step in STEPS} | own
    wait_until(lambda: seen() >= wanted, SECONDS, what=f"{wanted} in Flower")


def test_flower_shows_what_each_machine_calls_itself(worked: BenchPool) -> None:
    names = {f"worker-{number}" for number, _ in enumerate(_machines(worked), start=1)}

    def seen() -> set[str]:
        own = [task for task in _taken(worked) if task["worker"].startswith("w.0x")]
        return {task["name"] for task in own if task["kwargs"] in {repr({"machine": name}) for name in names}}

    wait_until(lambda: seen() >= STEPS, SECONDS, what="a machine's name beside each step in Flower")


def test_rabbitmq_has_the_queues_as_designed(worked: BenchPool) -> None:
    scheduler, workers = worked.pool.on_chain.scheduler, _machines(worked)
    own = {*topology.PIPELINE_QUEUES, topology.DEAD_QUEUE, topology.lane_queue_name(scheduler.key.wallet)}
    core = _queues(worked, worked.names.core)
    assert own <= set(core)
    assert all(core[name]["type"] == "quorum" for name in own)
    # The queue of retries is declared by the first one. Celery's and Flower's own end with the process that uses them.
    assert all(re.search(r"celeryev|pidbox", name) for name in set(core) - own - {topology.RETRY_QUEUE})

    pool = _queues(worked, worked.names.pool)
    compute = {topology.compute_queue_name(wallet.key.wallet) for wallet in workers}
    tx = {topology.tx_queue_name(wallet.key.wallet) for wallet in workers}
    assert compute | tx <= set(pool)
    assert all(re.fullmatch(r"w\.0x[0-9a-f]{40}(\.tx)?", name) for name in pool)
    # One node has nothing to replicate.
    assert all(queue["type"] == "classic" for queue in pool.values())


def test_nothing_was_given_up(worked: BenchPool) -> None:
    dead = httpx.get(
        f"{worked.servers.rabbitmq_api}/api/queues/{worked.names.core}/{topology.DEAD_QUEUE}",
        auth=_login(worked),
        timeout=ample(5.0),
    )
    assert dead.raise_for_status().json().get("messages", 0) == 0


def _machines(bench_pool: BenchPool) -> list[Any]:
    """Wallets whose machines run."""
    return list(bench_pool.pool.on_chain.workers[:HONEST])


def _flower(bench_pool: BenchPool, path: str) -> Mapping[str, Any] | None:
    """Flower's answer, or None while it does not listen."""
    try:
        found: Mapping[str, Any] = httpx.get(
            f"http://127.0.0.1:{bench_pool.names.flower_port}{path}", timeout=ample(5.0)
        ).json()
    except httpx.TransportError:
        return None
    return found


def _taken(bench_pool: BenchPool) -> list[Mapping[str, Any]]:
    """Flower's tasks that a process has taken: what is only sent so far has no worker there."""
    return [task for task in (_flower(bench_pool, "/api/tasks") or {}).values() if "worker" in task]


def _queues(bench_pool: BenchPool, vhost: str) -> dict[str, Mapping[str, Any]]:
    answer = httpx.get(
        f"{bench_pool.servers.rabbitmq_api}/api/queues/{vhost}", auth=_login(bench_pool), timeout=ample(5.0)
    ).raise_for_status()
    return {queue["name"]: queue for queue in answer.json()}


def _login(bench_pool: BenchPool) -> tuple[str, str]:
    parts = urlsplit(bench_pool.servers.amqp_url)
    return parts.username or "", parts.password or ""


def test_flowers_page_of_a_scheduler_process_answers(worked: BenchPool) -> None:
    def inspected() -> Mapping[str, Any]:
        found = _flower(worked, "/api/workers?refresh=1") or {}
        return {name: facts for name, facts in found.items() if name.startswith("pipeline@") and "stats" in facts}

    wait_until(inspected, SECONDS, what="what Flower asked the pipeline's processes")
