"""The stock SDK 9 buys confidential tasks from a whole pool, with one dataset and with a bulk of them: scheduler, one
machine with simulated enclaves, and the secret service are processes as they run for a user; then everything that is
left is searched for the secrets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import pytest
from pymongo import MongoClient

from bench.rig.bench_pool import BenchPool, prepared_pool
from ops.market import orders
from ops.pool import servers
from ops.pool.local import WorkerMachine
from ops.pool.on_chain import PRICE, XS
from ops.stack import ports, tools
from ops.stack.servers.anvil import Anvil
from protocol.poco.ids import task_id
from protocol.poco.view import TaskStatus
from protocol.types import TaskId
from tests import kept_by_engine
from tests.faulty.http import beside
from tests.integration.conftest import Chain
from tests.integration.pool.conftest import ended
from tests.integration.sms.service import Sms, load_surroundings, serving
from tests.integration.sms.stock_sdks import DATASET, TDX_TAG, start_sdk
from tests.integration.sms.test_enclave_machine import APP
from tests.integration.test_sdk_requester import await_deal
from tests.integration.workers.conftest import IMAGE, engine_host
from tests.kept_by_engine import nonce
from tests.waiting import ample, wait_until
from workers.sandbox.handed import LAUNCHER

__all__ = ["engine_host"]

BLOCK_TIME = 0.5
#: Tasks of the deal, on a machine with so many slots.
TASKS, SLOTS = 50, 2
#: Seconds for everything the SDK does, and for all tasks.
WAIT_SECONDS = 180.0
#: Of this run: what an engine kept of an earlier one is not this one's.
DEVELOPERS, REQUESTERS = (f"planted-secret-of-the-{who}-{nonce()}" for who in ("developer", "requester"))
ANSWER = hashlib.sha256(f"{DATASET}{DEVELOPERS}{REQUESTERS}".encode()).hexdigest()
#: Containerd's database, in the engine's folder: it only marks as free what it has deleted.
ENGINES_OWN = "data/containerd/daemon/io.containerd.metadata.v1.bolt/meta.db"
#: Datasets of the bulk, and how many of them a task gets.
BULK, PER_TASK = ["planted-rows-of-one, ", "planted-rows-of-two, ", "planted-rows-of-three"], 2
#: Writes down all datasets of its slice.
BULK_APP = (
    "for i in $(seq $IEXEC_BULK_SLICE_SIZE); do eval cat $IEXEC_IN/\\$IEXEC_DATASET_${i}_FILENAME; done > /iexec_out/r;"
    ' echo {\\"deterministic-output-path\\": \\"/iexec_out/r\\"} > /iexec_out/computed.json'
)


class Files(SimpleHTTPRequestHandler):
    """Serves the dataset, and says nothing."""

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def pool() -> Iterator[BenchPool]:
    """A pool that is prepared, not started, whose secret service will be at its setting."""
    url = f"http://127.0.0.1:{ports.free_port()}"
    with prepared_pool(
        block_time=BLOCK_TIME,
        workers=1,
        servers=servers.bring_up(tls=True),
        env={"SLUICE_ENCLAVE_SMS_URL": url, "SLUICE_LOG_LEVEL": "debug"},
    ) as prepared:
        yield prepared


def test_sdk_9_has_fifty_confidential_tasks_and_a_bulk_done_while_each_part_is_killed_and_no_secret_is_left_anywhere(
    pool: BenchPool, engine_host: str, tmp_path: Path
) -> None:
    assert engine_host == pool.servers.docker_host
    load_surroundings(engine_host)
    url = pool.pool.env["SLUICE_ENCLAVE_SMS_URL"]
    assert isinstance(pool.node, Anvil)
    chain = Chain(pool.node, pool.rpc, pool.chain.addresses)
    files = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=tmp_path))
    with (
        serving(
            chain,
            pool.servers.mongodb_uri,
            tmp_path / "sms",
            port=int(url.rpartition(":")[2]),
            gateway=pool.servers.ipfs_gateway,
        ) as sms,
        beside(files),
    ):
        pool.pool.start_scheduler()
        machine = WorkerMachine("worker-1", pool.pool.on_chain.workers[0], SLOTS)
        own = {"SLUICE_ENCLAVE": "simulated", "SLUICE_LOCAL_IMAGES": IMAGE, "SLUICE_MEMORY_PER_SLOT": str(2**26)}
        pool.pool.start_machines([machine], own)
        with start_sdk("9", chain, sms, tmp_path, **wanted(pool, files.server_port)) as requester:
            try:
                deal = await_deal(chain)
                tasks = [task_id(deal, index) for index in range(TASKS)]
                for number, kill in enumerate((sms_killed, machine_killed, scheduler_killed) * 2, start=1):
                    await_completed(pool, tasks, number * TASKS // 8)
                    # So that none at the end says something.
                    assert any(locked(pool))
                    kill(pool, sms)
                printed, complaints = requester.communicate(timeout=ample(WAIT_SECONDS))
            finally:
                requester.kill()
        assert requester.returncode == 0, complaints
        report = json.loads(printed)
        assert report["files"]["r"] == f"{ANSWER}  -\n"
        await_completed(pool, tasks, TASKS)
        for task in (tasks[0], tasks[-1]):
            assert ended(pool, task)["currentStatus"] == "COMPLETED"
        # The rows of each slice, in the order of the bulk.
        assert [task["r"] for task in report["bulk"]["files"]] == ["".join(BULK[:PER_TASK]), "".join(BULK[PER_TASK:])]
        wait_until(lambda: not any(locked(pool)), 20, what="the last stake to be free")
        values = [report["key"], *report["bulk"]["keys"], DATASET, DEVELOPERS, REQUESTERS, *BULK]
        nothing_left(pool, sms, values, tmp_path, harmless=tasks[0])


def sms_killed(_: BenchPool, sms: Sms) -> None:
    sms.kill()
    sms.start()


def machine_killed(pool: BenchPool, _: Sms) -> None:
    pool.pool.running["worker-1"].kill()
    pool.pool.restart("worker-1")


def scheduler_killed(pool: BenchPool, _: Sms) -> None:
    pool.pool.running["scheduler"].kill()
    pool.pool.restart("scheduler")


def await_completed(pool: BenchPool, tasks: list[TaskId], number: int) -> None:
    def enough() -> bool:
        return sum(view.status is TaskStatus.COMPLETED for view in pool.hub.tasks(tasks)) >= number

    wait_until(enough, WAIT_SECONDS, what=f"{number} completed tasks")


def wanted(pool: BenchPool, port: int) -> dict[str, Any]:
    """What the SDK is told: an app and a dataset to deploy, secrets to store, and what to buy from whom."""
    on_chain = pool.pool.on_chain
    key = on_chain.scheduler.key
    offer, of_bulk = (
        orders.offer_work(
            on_chain.market, key, on_chain.workerpool, category=XS, price=PRICE, tag=TDX_TAG, trust=1, volume=volume
        ).to_json()
        for volume in (TASKS, -(-len(BULK) // PER_TASK))
    )
    return {
        "ipfs_gateway": pool.servers.ipfs_gateway,
        "workerpool": offer,
        # Who has what the work costs.
        "requester": on_chain.requester._private.to_hex(),
        "image": IMAGE,
        "dataset_url": f"http://127.0.0.1:{port}/dataset.aes",
        "args": f"sh -c '{APP}'",
        "volume": TASKS,
        "app_secret": DEVELOPERS,
        "requester_secret": REQUESTERS,
        "bulk": {
            "ipfs_api": pool.servers.ipfs_api,
            "workerpool": of_bulk,
            "url": f"http://127.0.0.1:{port}",
            "rows": BULK,
            "per_task": PER_TASK,
            "args": f"sh -c '{BULK_APP}'",
        },
    }


def locked(pool: BenchPool) -> list[int]:
    """Stakes still locked: the pool's, the machine's, the requester's."""
    on_chain = pool.pool.on_chain
    wallets = [on_chain.scheduler.key.wallet, on_chain.workers[0].key.wallet, on_chain.requester.wallet]
    return [account.locked for account in pool.hub.accounts(wallets)]


def nothing_left(pool: BenchPool, sms: Sms, values: list[str], folder: Path, harmless: str) -> None:
    """Search what scheduler, machine, service, MongoDB, RabbitMQ and the engine have kept. `harmless`: a word that is
    in many places, and must be found there, so that the search sees what it looks for.
    """
    engine = docker.DockerClient(base_url=pool.servers.docker_host)
    try:
        wallet = pool.pool.on_chain.workers[0].key.wallet
        mine = {"label": f"sluice.wallet={wallet}"}
        wait_until(lambda: not engine.api.containers(all=True, filters=mine), 20, what="the containers' removal")
        told = [engine.api.inspect_container(each["Id"]) for each in engine.api.containers(all=True)]
    finally:
        engine.close()
    words = [value.encode() for value in (*values, harmless, IMAGE)]
    found = {"the engine": _words_in(json.dumps(told).encode(), words)}
    with MongoClient[dict[str, Any]](pool.servers.mongodb_uri) as client:
        for database in (pool.names.database, sms.environment["SLUICE_SMS_DATABASE"]):
            for name in client[database].list_collection_names():
                stored = repr(list(client[database][name].find())).encode()
                found[f"{database}.{name}"] = _words_in(stored, words)
    stack = tools.root() / ".sluice" / "stack"
    # The SDK's own files in `folder` hold the secrets, of course.
    # All that the engine has, its database's freed pages and bundles of containers too.
    for place in (pool.home, folder / "sms", stack / "rabbitmq", kept_by_engine.FOLDER):
        found |= {str(path): _words_in(kept_by_engine.content(path), words) for path in kept_by_engine.files_in(place)}
    assert harmless.encode() in found[f"{pool.names.database}.tasks"]
    # What the engine is told does stay there.
    assert LAUNCHER.encode() in kept_by_engine.content(kept_by_engine.FOLDER / ENGINES_OWN)
    for place, word in ((stack / "rabbitmq", harmless), (pool.home, harmless), (kept_by_engine.FOLDER, IMAGE)):
        assert any(word.encode() in seen for path, seen in found.items() if path.startswith(str(place))), place
    assert any(harmless.encode() in seen for path, seen in found.items() if path.endswith((".log", "/log"))), "logs"
    secret = {value.encode() for value in values}
    left = {place: seen & secret for place, seen in found.items() if seen & secret}
    assert left == {}


def _words_in(content: bytes, words: list[bytes]) -> set[bytes]:
    return {word for word in words if word in content}
