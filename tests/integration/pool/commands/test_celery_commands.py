"""Celery's own commands, run as its users know them, beside the shared pool."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import pytest

from bench.rig.bench_pool import BenchPool
from config import topology
from config.connections.mongodb import client
from ops.pool.local import STOP_SECONDS, WorkerMachine
from ops.stack import ports, tools
from pipeline.store.task.tasks import Tasks
from tests.integration import forged
from tests.integration.pool.conftest import HONEST
from tests.integration.pool.environment import scheduler_environment
from tests.waiting import ample, wait_until

#: Seconds for a Celery process to start, to be seen, and to end.
SECONDS = 30.0


@contextmanager
def _running(bench_pool: BenchPool, folder: Path, *words: str) -> Iterator[BaseProcess]:
    """`celery …` with the environment of the pool's scheduler, until the end of the block, which ends it by SIGTERM."""
    own = dict.fromkeys(("SLUICE_HOME", "SLUICE_METRICS_DIR", "PROMETHEUS_MULTIPROC_DIR"), str(folder))
    environment = scheduler_environment(bench_pool) | own
    process = forged.start(forged.run_celery, words, env=environment, cwd=tools.root(), out=folder / "log")
    try:
        yield process
        process.terminate()
        process.join(ample(SECONDS))
        assert process.exitcode is not None
    finally:
        forged.kill(process)


def _celery(bench_pool: BenchPool, *words: str) -> str:
    """What `celery -A pipeline …` prints with the environment of the pool's scheduler; "" if it fails."""
    env = scheduler_environment(bench_pool)
    ended = forged.celery("--no-color", "-A", "pipeline", *words, env=env, cwd=tools.root())
    return ended.out if ended.code == 0 else ""


#: Has a question wait longer for answers than Celery's second.
TIMEOUT = f"--timeout={ample(0.5):g}"


@pytest.mark.parametrize("words", [("status", TIMEOUT), ("inspect", TIMEOUT, "active")])
def test_status_and_inspect_see_the_schedulers_processes(shared_pool: BenchPool, words: tuple[str, ...]) -> None:
    def all_answer() -> bool:
        said = _celery(shared_pool, *words)
        return all(re.search(rf"{name}@\S+: OK", said) for name in ("pipeline", "lane"))

    wait_until(all_answer, SECONDS, what="the answers of pipeline and lane")


def test_report_shows_the_configuration(shared_pool: BenchPool) -> None:
    assert "transport:" in _celery(shared_pool, "report")


def test_a_second_pipeline_worker_takes_part_and_ends_at_sigterm(shared_pool: BenchPool, tmp_path: Path) -> None:
    node = f"second@{os.uname().nodename}"
    with _running(shared_pool, tmp_path, "-A", "pipeline", "worker", "-c", "1", "-n", node):

        def consumed() -> set[str]:
            said = _celery(shared_pool, "inspect", "--json", TIMEOUT, "-d", node, "active_queues")
            return {queue["name"] for queue in json.loads(said)[node]} if said else set()

        assert wait_until(consumed, SECONDS, what="its answer") == set(topology.PIPELINE_QUEUES)


def test_beat_publishes_sweeps(shared_pool: BenchPool, tmp_path: Path) -> None:
    with _running(shared_pool, tmp_path, "-A", "beat", "beat", "--loglevel=DEBUG"):
        log = tmp_path / "log"
        wait_until(
            lambda: log.exists() and log.read_text().count(f"{topology.SWEEP} sent") >= 2, SECONDS, what="two sweeps"
        )


def test_flower_shows_the_schedulers_processes_and_ends_at_sigterm(shared_pool: BenchPool, tmp_path: Path) -> None:
    port = ports.free_port()
    with _running(shared_pool, tmp_path, "-A", "pipeline", "flower", "--address=127.0.0.1", f"--port={port}"):

        def shown() -> bool:
            try:
                rows = httpx.get(f"http://127.0.0.1:{port}/workers?json=1", timeout=ample(5.0)).json()["data"]
            except (httpx.TransportError, ValueError):
                return False
            return any(row["hostname"].startswith("pipeline@") and row["status"] for row in rows)

        wait_until(shown, SECONDS, what="the pipeline's processes in Flower")


@pytest.fixture
def plain(shared_pool: BenchPool) -> Iterator[WorkerMachine]:
    """A spare wallet's machine, running as `celery -A workers worker`; it has the rights of any machine."""
    spare = shared_pool.pool.on_chain.workers[HONEST]
    machine = WorkerMachine("plain", spare, 2, ("celery", "-A", "workers", "worker"))
    # It returns once the pool knows the machine and both its queues have a consumer.
    shared_pool.pool.start_machines([machine])
    yield machine
    shared_pool.pool.running.pop(machine.name).stop(timeout=ample(STOP_SECONDS))


def test_a_machine_as_a_plain_celery_app_computes_with_the_rights_of_any_machine(
    shared_pool: BenchPool, plain: WorkerMachine
) -> None:
    wallet = plain.wallet.key.wallet
    stored = Tasks(client(shared_pool.servers.mongodb_uri)[shared_pool.names.database])

    def worked() -> bool:
        # More tasks at a time than the other machines have slots.
        deal = shared_pool.buy(trust=1, volume=12, args="sleep 0.5")
        shared_pool.wait([deal])
        return any(
            item.wallet == wallet for task in stored.of_deal(deal.deal_id) for item in task.replicates if item.digest
        )

    wait_until(worked, SECONDS, what="a task that it computed")
    process = shared_pool.pool.running[plain.name]
    assert process.alive()
    # Whatever flags it was started with, it tries nothing that a machine has no right to.
    log = shared_pool.pool.programs[plain.name].log.read_text()
    assert "ACCESS_REFUSED" not in log
    os.kill(process.pid, signal.SIGTERM)
    assert process.exits_within(ample(SECONDS)), log
