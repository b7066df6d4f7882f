"""A machine whose place at the broker is taken away finds its way back by itself."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from bench.arena import Arena
from protocol.poco.view import TaskStatus
from tests.waiting import wait_until


def connections(arena: Arena, wallet: str) -> int:
    """How many connections this user has open, by RabbitMQ's own word."""
    answer = broker(arena, "GET", f"/vhosts/{quote(arena.names.pool)}/connections")
    return sum(item.get("user") == wallet for item in answer.json())


def broker(arena: Arena, method: str, path: str) -> httpx.Response:
    """One request to RabbitMQ's management API as the operator."""
    user, password = arena.servers.amqp_url.split("//")[1].split("@")[0].split(":")
    return httpx.request(method, f"{arena.servers.rabbitmq_api}/api{path}", auth=(user, password)).raise_for_status()


def test_machines_whose_broker_users_were_removed_sign_in_again_and_work(hall: Arena) -> None:
    wallets = [worker.key.wallet for worker in hall.pool.ground.workers[:3]]
    for wallet in wallets:
        broker(hall, "DELETE", f"/users/{wallet}")
    deal = hall.buy(trust=1, volume=3)
    views = hall.wait([deal])
    assert all(view.status is TaskStatus.COMPLETED for view in views.values())
    # Both Celery processes of each, and what they publish with.
    wait_until(lambda: all(connections(hall, wallet) >= 2 for wallet in wallets), 40, what="all connections")
