"""Machines whose place at the broker is taken away, or whose API process is, find their way back by themselves."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from bench.rig.bench_pool import BenchPool
from pipeline.broker.users import machine_user
from protocol.poco.view import TaskStatus
from protocol.types import Wallet
from tests.waiting import ample, wait_until


def connections(bench_pool: BenchPool, wallet: str) -> int:
    """How many connections this user has open, by RabbitMQ's own word."""
    answer = broker(bench_pool, "GET", f"/vhosts/{quote(bench_pool.names.pool)}/connections")
    user = machine_user(bench_pool.names.pool, Wallet(wallet))
    return sum(item.get("user") == user for item in answer.json())


def broker(bench_pool: BenchPool, method: str, path: str) -> httpx.Response:
    """One request to RabbitMQ's management API as the operator."""
    user, password = bench_pool.servers.amqp_url.split("//")[1].split("@")[0].split(":")
    return httpx.request(
        method, f"{bench_pool.servers.rabbitmq_api}/api{path}", auth=(user, password), timeout=ample(5.0)
    ).raise_for_status()


def test_machines_whose_broker_users_were_removed_sign_in_again_and_work(shared_pool: BenchPool) -> None:
    wallets = [worker.key.wallet for worker in shared_pool.pool.on_chain.workers[:3]]
    for wallet in wallets:
        broker(shared_pool, "DELETE", f"/users/{machine_user(shared_pool.names.pool, wallet)}")
    deal = shared_pool.buy(trust=1, volume=3)
    views = shared_pool.wait([deal])
    assert all(view.status is TaskStatus.COMPLETED for view in views.values())
    # Both Celery processes of each, and what they publish with.
    wait_until(lambda: all(connections(shared_pool, wallet) >= 2 for wallet in wallets), 40, what="all connections")


def test_the_api_processes_share_a_port_and_when_one_is_killed_the_other_goes_on_until_it_is_back(
    shared_pool: BenchPool,
) -> None:
    pool, port = shared_pool.pool, urlsplit(shared_pool.pool.api_url).port or 0
    wait_until(lambda: len(listeners(port)) == 2, 20, what="two processes at the port")
    first, second = (pool.child_pid("scheduler", name) for name in ("api", "api-2"))
    before = listeners(port)
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: listeners(port) - before, 20, what="a new process at the port")
    assert pool.child_pid("scheduler", "api-2") != second
    assert pool.child_pid("scheduler", "api") == first
    deal = shared_pool.buy(trust=1, volume=2)
    assert all(view.status is TaskStatus.COMPLETED for view in shared_pool.wait([deal]).values())


def listeners(port: int) -> set[str]:
    """Inodes of the sockets that listen at an IPv4 port of this machine (proc(5): state 0A)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port}
