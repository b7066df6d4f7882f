"""Celery's own commands, run as its users know them, beside the shared pool."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bench.arena import Arena
from config import topology
from ops.pool.local import STOP_SECONDS, TIED, Machine
from ops.stack import ports, tools
from ops.stack.process import Process, Program
from pipeline.store.client import client
from pipeline.store.tasks import Tasks
from tests.integration.pool.environment import scheduler_environment
from tests.waiting import ample, wait_until

#: Seconds for a Celery process to start, to be seen, and to end.
SECONDS = 30.0


@contextmanager
def _running(arena: Arena, folder: Path, *words: str) -> Iterator[Process]:
    """`celery …` with the environment of the pool's scheduler, until the end of the block."""
    own = dict.fromkeys(("SLUICE_HOME", "SLUICE_METRICS_DIR", "PROMETHEUS_MULTIPROC_DIR"), str(folder))
    environment = scheduler_environment(arena) | own
    program = Program("celery", [*TIED, sys.executable, "-m", "celery", *words], folder, env=environment)
    process = program.start()
    try:
        yield process
    finally:
        process.stop(patience=ample(SECONDS))


def _celery(arena: Arena, *words: str) -> str:
    """What `celery …` prints with the environment of the pool's scheduler."""
    command = [sys.executable, "-m", "celery", "--no-color", *words]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    environment = inherited | scheduler_environment(arena)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tools.root())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_status_inspect_and_report_see_the_schedulers_processes(hall: Arena) -> None:
    status, active = _celery(hall, "-A", "pipeline", "status"), _celery(hall, "-A", "pipeline", "inspect", "active")
    report = _celery(hall, "-A", "pipeline", "report")

    for said in (status, active):
        assert all(re.search(rf"{name}@\S+: OK", said) for name in ("pipeline", "lane")), said
    assert "transport:" in report


def test_a_second_pipeline_worker_takes_part_and_ends_when_told(hall: Arena, tmp_path: Path) -> None:
    with _running(hall, tmp_path, "-A", "pipeline", "worker", "-c", "1", "-n", "second@%h") as process:
        seen = r"second@\S+: OK"
        wait_until(lambda: re.search(seen, _celery(hall, "-A", "pipeline", "status")), SECONDS, what="it in `status`")
        (queues,) = json.loads(
            _celery(hall, "-A", "pipeline", "inspect", "--json", "-d", f"second@{os.uname().nodename}", "active_queues")
        ).values()
        assert {queue["name"] for queue in queues} == set(topology.PIPELINE_QUEUES)
        os.kill(process.pid, signal.SIGTERM)
        assert process.exits_within(ample(SECONDS))


def test_beat_publishes_sweeps(hall: Arena, tmp_path: Path) -> None:
    with _running(hall, tmp_path, "-A", "beat", "beat", "--loglevel=DEBUG") as process:
        log = tmp_path / "log"
        wait_until(lambda: log.read_text().count(f"{topology.SWEEP} sent") >= 2, SECONDS, what="two sweeps")
        os.kill(process.pid, signal.SIGTERM)
        assert process.exits_within(ample(SECONDS))


def test_flower_shows_the_schedulers_processes_and_ends_when_told(hall: Arena, tmp_path: Path) -> None:
    port = ports.free_port()
    with _running(hall, tmp_path, "-A", "pipeline", "flower", "--address=127.0.0.1", f"--port={port}") as process:

        def shown() -> bool:
            try:
                rows = httpx.get(f"http://127.0.0.1:{port}/workers?json=1").json()["data"]
            except (httpx.TransportError, ValueError):
                return False
            return any(row["hostname"].startswith("pipeline@") and row["status"] for row in rows)

        wait_until(shown, SECONDS, what="the pipeline's processes in Flower")
        os.kill(process.pid, signal.SIGTERM)
        assert process.exits_within(ample(SECONDS))


@pytest.fixture
def plain(hall: Arena) -> Iterator[Machine]:
    """The spare wallet's machine, running as `celery -A workers worker`; it has the rights of any machine."""
    machine = Machine("plain", hall.pool.ground.workers[-1], 2, ("celery", "-A", "workers", "worker"))
    # It returns once the pool knows the machine and both its queues have a consumer.
    hall.pool.start_machines([machine])
    yield machine
    hall.pool.running.pop(machine.name).stop(patience=ample(STOP_SECONDS))


def test_a_machine_as_a_plain_celery_app_computes_with_the_rights_of_any_machine(hall: Arena, plain: Machine) -> None:
    wallet = plain.wallet.key.wallet
    stored = Tasks(client(hall.servers.mongodb_uri)[hall.names.database])

    def worked() -> bool:
        # More tasks at a time than the other machines have slots.
        deal = hall.buy(trust=1, volume=12, args="sleep 0.5")
        hall.wait([deal])
        return any(
            item.wallet == wallet for task in stored.of_deal(deal.deal_id) for item in task.replicates if item.digest
        )

    wait_until(worked, SECONDS, what="a task that it computed")
    process = hall.pool.running[plain.name]
    assert process.alive()
    # Whatever flags it was started with, it tries nothing that a machine has no right to.
    log = hall.pool.programs[plain.name].log.read_text()
    assert "ACCESS_REFUSED" not in log
    os.kill(process.pid, signal.SIGTERM)
    assert process.exits_within(ample(SECONDS)), log
