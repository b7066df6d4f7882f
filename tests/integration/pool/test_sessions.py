"""A machine whose place at the broker is taken away finds its way back by itself."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from bench.rig.bench_pool import BenchPool
from protocol.poco.view import TaskStatus
from tests.waiting import ample, wait_until


def connections(bench_pool: BenchPool, wallet: str) -> int:
    """How many connections this user has open, by RabbitMQ's own word."""
    answer = broker(bench_pool, "GET", f"/vhosts/{quote(bench_pool.names.pool)}/connections")
    return sum(item.get("user") == wallet for item in answer.json())


def broker(bench_pool: BenchPool, method: str, path: str) -> httpx.Response:
    """One request to RabbitMQ's management API as the operator."""
    user, password = bench_pool.servers.amqp_url.split("//")[1].split("@")[0].split(":")
    return httpx.request(
        method, f"{bench_pool.servers.rabbitmq_api}/api{path}", auth=(user, password), timeout=ample(5.0)
    ).raise_for_status()


def test_machines_whose_broker_users_were_removed_sign_in_again_and_work(shared_pool: BenchPool) -> None:
    wallets = [worker.key.wallet for worker in shared_pool.pool.on_chain.workers[:3]]
    for wallet in wallets:
        broker(shared_pool, "DELETE", f"/users/{wallet}")
    deal = shared_pool.buy(trust=1, volume=3)
    views = shared_pool.wait([deal])
    assert all(view.status is TaskStatus.COMPLETED for view in views.values())
    # Both Celery processes of each, and what they publish with.
    wait_until(lambda: all(connections(shared_pool, wallet) >= 2 for wallet in wallets), 40, what="all connections")
