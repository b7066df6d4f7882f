"""A pool as `sluice demo --enclave` has it: the demo's confidential deal, and docs/quickstart/confidential.md as it is
printed, which buys with the stock SDK 9.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from rich.console import Console

from bench.rig.bench_pool import BenchPool, prepared_pool
from config.connections.mongodb import drop_database
from ops.demo import plan, run
from ops.demo.confidential import DEVELOPERS, REQUESTERS, ROWS, Confidential
from ops.demo.screen import Progress
from ops.demo.stage import RESULT_FILE, DemoStage
from ops.market import results
from ops.pool import servers
from ops.pool.local import WorkerMachine
from ops.pool.site import Names, Servers
from ops.stack import ports
from protocol.enclave.result import CONTENT_FILE, KEY_FILE
from protocol.errors import BadMessage, Refused
from protocol.poco.view import TaskStatus
from tests.documents import CONFIDENTIAL
from tests.integration.pool.test_documents import PAGE_SECONDS, folder, said_as_printed, second
from tests.integration.sms.service import load_surroundings

__all__ = ["folder", "second"]

BLOCK_TIME = 0.5
#: What the demo's app says of what it had.
PROOF = (
    f"dataset: {hashlib.sha256(ROWS).hexdigest()}\n"
    f"secrets: {hashlib.sha256(DEVELOPERS + b' ' + REQUESTERS + bytes([10])).hexdigest()}\n"
)


@pytest.fixture(scope="module")
def hosts() -> Servers:
    return servers.bring_up(tls=True)


@pytest.fixture(scope="module")
def confidential(hosts: Servers) -> Confidential:
    return Confidential.prepare(f"http://127.0.0.1:{ports.free_port()}", partial(run._add_to_ipfs, hosts))


@pytest.fixture(scope="module")
def shared_pool(hosts: Servers, confidential: Confidential) -> Iterator[BenchPool]:
    """A pool with its secret service, and one machine, which simulates enclaves."""
    load_surroundings(hosts.docker_host)
    port = int(confidential.service.rpartition(":")[2])
    with prepared_pool(
        block_time=BLOCK_TIME,
        workers=1,
        servers=hosts,
        env={"SLUICE_ENCLAVE_SMS_URL": confidential.service},
        datasets=[confidential.dataset],
    ) as prepared:
        pool = prepared.pool
        pool.start_secret_service(port, f"test_sms_{port}")
        pool.start_scheduler()
        pool.start_machines([WorkerMachine("worker-1", pool.on_chain.workers[0], env={"SLUICE_ENCLAVE": "simulated"})])
        pool.await_secret_service()
        yield prepared
        drop_database(hosts.mongodb_uri, f"test_sms_{port}")


def test_the_demos_confidential_deal_proves_its_secrets_to_the_requester_and_to_nobody_else(
    shared_pool: BenchPool, confidential: Confidential
) -> None:
    on_chain, gateway = shared_pool.pool.on_chain, shared_pool.servers.ipfs_gateway
    confidential.store_secrets(on_chain)
    with pytest.raises(Refused, match="HTTP 409"):
        confidential.store_secrets(on_chain)
    stage = DemoStage(shared_pool.pool, shared_pool.chain, shared_pool.rpc, gateway)
    with Progress(Console(quiet=True)) as progress:
        (story,) = stage.round([plan.sealed_purchase(on_chain.datasets[-1], confidential)], progress)
    ((task, view),) = story.views.items()
    assert view.status is TaskStatus.COMPLETED
    assert story.results[task] == f"args: hello from an enclave\ntask index: 0 of 1\n{PROOF}"

    stored = results.fetch(gateway, view.results).files
    assert set(stored) == {KEY_FILE, CONTENT_FILE}
    assert RESULT_FILE in results.open_encrypted(stored, confidential.result_key)
    with pytest.raises(BadMessage):
        results.open_encrypted(stored, generate_private_key(65537, 2048))


@pytest.mark.timeout(PAGE_SECONDS * 2)
def test_the_page_on_confidential_tasks_does_as_printed_what_it_says(
    shared_pool: BenchPool, folder: Path, second: Names
) -> None:
    own = {"SLUICE_SMS_PORT": str(ports.free_port()), "SLUICE_SMS_DATABASE": f"{second.database}_sms"}
    try:
        printed = said_as_printed(shared_pool, folder, second, CONFIDENTIAL, own)
    finally:
        drop_database(shared_pool.servers.mongodb_uri, own["SLUICE_SMS_DATABASE"])
    # With the SDK 9, and with the SDK 8.24.
    assert printed.count("TASK_COMPLETED") == 2
    assert f"args: hello\ntask index: 0 of 1\n{PROOF}" in printed
    for framework in ("scone", "gramine"):
        assert f"{framework} Missing tags [{framework}] in workerpoolorder" in printed
    assert "simulated, sessions from" in " ".join(printed.split())
