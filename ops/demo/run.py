"""The demo from start to end: stack, pool, deals, the story of each, and what stays running.

stack up ──► contracts, wallets ──► scheduler, 4 workers ──► 3 deals ──► a liar joins ──► 1 deal ──► report
             with enclaves: secret service, one of the 4 simulates ──► a confidential one too
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import docker
import httpx
from rich.console import Console

from chain.contracts import calls
from chain.rpc.client import Rpc
from config.connections.http_client import http_client
from config.connections.mongodb import drop_database
from config.settings import Settings
from config.values.sms_settings import sms_settings
from config.values.stack_settings import StackSettings
from ops.demo import app_image, plan, report
from ops.demo.confidential import Confidential
from ops.demo.report import DealStory
from ops.demo.screen import Progress
from ops.demo.stage import DemoStage
from ops.market.contracts import NewDataset
from ops.poco.accounts import dev_key
from ops.poco.deploy import PocoAddresses
from ops.poco.sender import DirectSender, TxRequest
from ops.pool import local, servers, site
from ops.pool.local import LocalPool, WorkerMachine
from ops.pool.on_chain import PROVIDER
from ops.pool.site import Chain, Names, Servers
from ops.stack import enclave_images, stack
from ops.stack.parts import StackPart
from ops.stack.stack import Watch
from protocol.amounts import NRLC
from protocol.enclave.simulation import DEVELOPMENT_CHAINS
from protocol.errors import BadSetting, StorageUnavailable
from protocol.ethereum.hexbytes import to_hex
from protocol.poco.view import TaskStatus
from protocol.types import Hash32, NRlc, Wallet
from workers.sandbox.engine.container import Engine

#: Honest machines, one container each; three must agree at trust 5, four and one more if one of them lies.
WORKERS = 4
#: nRLC that the scheduler's wallet has beside its stake, and gas of the transfer.
POCKET, TRANSFER_GAS = NRlc(100 * NRLC), 100_000
LIAR = ("ops.demo.liar",)
#: Of the secret service: each chain needs a database of its own, and the demo's chain is often a new one.
SMS_DATABASE = "sluice_demo_sms"
DATASET, INPUT_FILE = b"the demo's dataset\n", b"an input file of the demo\n"


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """How the demo ended. `completed`: every task of every deal is COMPLETED on chain."""

    stories: Sequence[DealStory]
    names: Mapping[Wallet, str]
    told: dict[str, Any]
    endpoints: Mapping[str, str]
    completed: bool


def home(settings: Settings) -> Path:
    """Folder of the demo's pool: settings, logs and pid files of its processes."""
    return settings.home / "demo"


def run(settings: Settings, console: Console, watch: Watch, *, keep: bool, enclave: bool = False) -> DemoOutcome:
    """Run the whole demo: start the stack and a pool, buy deals, and report them. `keep`: leave the pool running.
    `enclave`: with a secret service, a machine that simulates enclaves, and a confidential deal.

    Raises BadSetting in a shell with the settings of a real pool, StackError and its kinds, NotReady.
    """
    _require_development_chain(settings)
    started = time.monotonic()
    local.stop_all(home(settings))
    chain, hosts = _start_stack(settings, watch)
    console.print("Contracts, wallets and stakes …")
    confidential = Confidential.prepare(_service_url(), partial(_add_to_ipfs, hosts)) if enclave else None
    pool = _prepare_pool(settings, chain, hosts, confidential)
    try:
        with Rpc(chain.rpc_url) as rpc, Progress(console) as progress:
            _fill_pocket(rpc, pool, chain)
            stage = DemoStage(pool, chain, rpc, hosts.ipfs_gateway)
            _start_pool(pool, console, confidential)
            stories = _run_deals(stage, pool, progress, console, _add_to_ipfs(hosts, INPUT_FILE), confidential)
    except BaseException:
        pool.stop()
        raise
    if not keep:
        pool.stop()
    endpoints = _endpoints(settings, chain, pool, hosts)
    if confidential is not None:
        endpoints[report.SECRET_SERVICE] = confidential.service
    seconds = time.monotonic() - started
    return DemoOutcome(
        stories=stories,
        names=stage.names(),
        told=report.as_json(stories, pool.on_chain, endpoints, seconds=seconds, block_time=chain.block_time),
        endpoints=endpoints,
        completed=all(view.status is TaskStatus.COMPLETED for story in stories for view in story.views.values()),
    )


def _require_development_chain(settings: Settings) -> None:
    """Raise BadSetting for another chain: the servers that the settings name are a real pool's then, and what an
    earlier demo would have left there, virtual hosts by the pool's own names, is removed first of all.
    """
    if settings.chain_id not in DEVELOPMENT_CHAINS:
        raise BadSetting(
            name="SLUICE_CHAIN_ID",
            why=f"chain {settings.chain_id} is no development chain, so this shell has the settings of another pool,"
            " whose queues the demo would remove",
            fix="Give the command in a shell without them.",
        )


def _start_stack(settings: Settings, watch: Watch) -> tuple[Chain, Servers]:
    """Start the local stack; its chain and its servers."""
    found = stack.up(settings, StackSettings(), tuple(StackPart), watch).settings
    at = json.loads((settings.home / "stack" / StackPart.CHAIN / "addresses.json").read_text())
    chain = Chain(
        rpc_url=found["SLUICE_RPC_URL"],
        ws_url=found["SLUICE_WS_URL"],
        chain_id=int(found["SLUICE_CHAIN_ID"]),
        block_time=float(found["SLUICE_BLOCK_TIME"]),
        addresses=PocoAddresses.from_json(at),
    )
    return chain, servers.from_settings(found, settings)


def _prepare_pool(settings: Settings, chain: Chain, hosts: Servers, confidential: Confidential | None) -> LocalPool:
    """A pool ready to start, after what an earlier demo left in stores and broker is removed."""
    names = Names(
        database="sluice_demo",
        core=settings.amqp_core_vhost,
        pool=settings.amqp_pool_vhost,
        api_port=settings.api_port,
        flower_port=settings.flower_port,
        operations_port=settings.operations_port,
    )
    site.clear(hosts, names)
    shutil.rmtree(home(settings), ignore_errors=True)
    with closing(docker.DockerClient(base_url=hosts.docker_host)) as engine:
        image = app_image.build(engine)
    checksum = Hash32(to_hex(hashlib.sha256(DATASET).digest()))
    datasets = [NewDataset("sluice-demo", _add_to_ipfs(hosts, DATASET), checksum)]
    env = {}
    if confidential is not None:
        with closing(Engine(hosts.docker_host)) as engine:
            enclave_images.load(engine)
        drop_database(hosts.mongodb_uri, SMS_DATABASE)
        datasets.append(confidential.dataset)
        env["SLUICE_ENCLAVE_SMS_URL"] = confidential.service
    return site.prepare(
        hosts, chain, names, home(settings), workers=WORKERS + 1, image=image, datasets=datasets, env=env
    )


def _fill_pocket(rpc: Rpc, pool: LocalPool, chain: Chain) -> None:
    """Give the scheduler's wallet RLC outside the hub, so that `sluice stake deposit` can be tried."""
    pocket = calls.transfer(pool.on_chain.scheduler.key.wallet, POCKET)
    DirectSender(dev_key(PROVIDER), rpc, chain.chain_id).run([TxRequest(chain.addresses.rlc, pocket, TRANSFER_GAS)])


def _start_pool(pool: LocalPool, console: Console, confidential: Confidential | None) -> None:
    """Start scheduler and machines; for a confidential deal also the secret service, with its secrets."""
    machines = [WorkerMachine(f"worker-{n}", wallet) for n, wallet in enumerate(pool.on_chain.workers[:WORKERS], 1)]
    if confidential is None:
        console.print("Scheduler and workers …")
    else:
        console.print(f"Secret service, scheduler and workers; {machines[-1].name} simulates enclaves …")
        machines[-1] = replace(machines[-1], env={"SLUICE_ENCLAVE": "simulated"})
        pool.start_secret_service(sms_settings().port, SMS_DATABASE)
    pool.start_scheduler()
    pool.start_machines(machines)
    if confidential is not None:
        pool.await_secret_service()
        confidential.store_secrets(pool.on_chain)


def _run_deals(
    stage: DemoStage,
    pool: LocalPool,
    progress: Progress,
    console: Console,
    input_url: str,
    confidential: Confidential | None,
) -> list[DealStory]:
    """Buy the deals, the last one after a lying machine has joined."""
    on_chain = pool.on_chain
    honest, contested = plan.purchases(input_url, on_chain.datasets[0])
    if confidential is None:
        console.print("Three deals …")
    else:
        console.print("Three deals and a confidential one …")
        honest.append(plan.sealed_purchase(on_chain.datasets[-1], confidential))
    stories = stage.round(honest, progress)
    console.print("A liar joins, one more deal …")
    pool.start_machines([WorkerMachine(f"worker-{WORKERS + 1}", on_chain.workers[WORKERS], module=LIAR)])
    return stories + stage.round([contested], progress)


def _add_to_ipfs(hosts: Servers, content: bytes) -> str:
    """Put `content` on the local IPFS node; its URL at the gateway."""
    try:
        with http_client(hosts.ipfs_api, timeout=5.0) as api:
            answer = api.post("/api/v0/add", params={"cid-version": 0}, files={"file": content})
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise StorageUnavailable(what=f"IPFS at {hosts.ipfs_api}", why=str(error)) from error
    return f"{hosts.ipfs_gateway}/ipfs/{answer.json()['Hash']}"


def _service_url() -> str:
    """Where the demo's secret service listens."""
    return f"http://127.0.0.1:{sms_settings().port}"


def _endpoints(settings: Settings, chain: Chain, pool: LocalPool, hosts: Servers) -> dict[str, str]:
    """Addresses of the demo's parts, for the report."""
    return {
        "rpc": chain.rpc_url,
        "hub": chain.addresses.hub,
        "workerpool": pool.on_chain.workerpool,
        "app": pool.on_chain.app,
        "app_image": pool.on_chain.app_image,
        "api": pool.api_url,
        "operations": f"http://127.0.0.1:{settings.operations_port}",
        "ipfs_api": hosts.ipfs_api,
        "ipfs_gateway": hosts.ipfs_gateway,
        "flower": f"http://127.0.0.1:{settings.flower_port}",
        "rabbitmq": hosts.rabbitmq_api,
    }
