"""An API process on the stack's MongoDB and RabbitMQ, a worker's key, and clients without one."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from chain.keystore import load_key
from config.connections.http_client import http_client
from config.http_server.server import http_server
from config.settings import Settings, read_settings, settings
from ops import cli
from ops.stack import ports
from ops.stack.stack import Stack
from pipeline.api.admin.access import operator_token
from pipeline.api.application import create_app, create_operations_app
from pipeline.api.monitor import Monitor
from pipeline.api.services import Services
from pipeline.domain.records import Replicate, TaskRecord
from pipeline.probes import Probes
from pipeline.store.client import database
from protocol.ethereum.signing import Key
from protocol.signin import SignIn
from protocol.types import (
    ZERO_ADDRESS,
    ZERO_HASH,
    BlockNumber,
    DealId,
    NRlc,
    TaskId,
    Timestamp,
    Wallet,
)
from protocol.wire import PROTOCOL, PROTOCOL_HEADER, Capabilities, Challenge, Login, Mode, Session
from tests.integration.conftest import IpfsNode, given
from tests.waiting import ample, wait_until

HUB, WORKERPOOL = "0x" + "ab" * 20, "0x" + "AC" * 20
SCHEDULER_KEY = "0x" + "22" * 32
#: Random: RabbitMQ's users are of the whole broker, which other test runs may use at the same time.
WORKER, STRANGER, REQUESTER = (Key(secrets.token_bytes(32)) for _ in range(3))
TASK = TaskId("0x" + "11" * 32)
OFFER = Capabilities(name="m", version="1", slots=1, cpus=1, memory_bytes=2**30, tag=ZERO_HASH)


class Clock:
    """A clock that tests set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass(frozen=True)
class Api:
    """A running API process (in a thread), and HTTP to it."""

    services: Services
    application: FastAPI
    http: httpx.Client
    #: The operator's port.
    operations: httpx.Client
    clock: Clock

    @property
    def settings(self) -> Settings:
        return self.services.settings

    def challenge(self, wallet: Wallet) -> Challenge:
        response = self.http.post("/workers/challenge", json={"wallet": wallet})
        response.raise_for_status()
        return Challenge.model_validate_json(response.content)

    def answer(self, key: Key, challenge: Challenge, *, wallet: Wallet | None = None, **more: Any) -> httpx.Response:
        """Log in with a challenge signed by `key`; `wallet`: whose login it claims to be."""
        signature = key.sign_typed_data(SignIn.from_typed_data(challenge.typed_data).typed_data)
        login = Login(wallet=wallet or key.wallet, nonce=challenge.nonce, signature=signature, capabilities=OFFER)
        headers = {PROTOCOL_HEADER: str(PROTOCOL)}
        return self.http.post("/workers/login", json=login.model_dump() | more, headers=headers)

    def sign_in(self, key: Key, **more: Any) -> Session:
        """Sign in; `more`: further fields of the login."""
        response = self.answer(key, self.challenge(key.wallet), **more)
        response.raise_for_status()
        return Session.model_validate_json(response.content)

    def ping(self, session: Session, machine: str | None = None) -> dict[str, Any]:
        """What the pool says to a ping of a machine that holds nothing."""
        header = {"authorization": f"Bearer {session.token}"}
        answer = self.http.post("/workers/ping", json={"tasks": [], "machine": machine}, headers=header)
        answer.raise_for_status()
        return dict(answer.json())

    def bearer(self, key: Key) -> dict[str, str]:
        """Headers of a machine that has signed in."""
        return {"authorization": f"Bearer {self.sign_in(key).token}"}


@pytest.fixture(scope="session")
def api_settings(stack: Stack, ipfs: IpfsNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of an API with a database and virtual hosts of its own, which are removed at the end."""
    mark = secrets.token_hex(6)
    own = given(stack.settings) | {
        "home": tmp_path_factory.mktemp("api"),
        "hub": HUB,
        "workerpool": WORKERPOOL,
        # No chain is part of these tests.
        "rpc_url": f"http://127.0.0.1:{ports.free_port()}",
        "private_key": SCHEDULER_KEY,
        "mongodb_database": f"test_{mark}",
        "amqp_core_vhost": f"core-{mark}",
        "amqp_pool_vhost": f"pool-{mark}",
        "ipfs_api": ipfs.api,
        "api_port": ports.free_port(),
        "flower_port": ports.free_port(),
        "operations_port": ports.free_port(),
        "max_result_bytes": 2**20,
    }
    port = int(read_settings(**own).amqp_url.get_secret_value().rpartition(":")[2])
    settings = read_settings(**(own | {"amqp_public_port": port}))
    yield settings
    database(settings).client.drop_database(settings.mongodb_database)
    with management(settings) as broker:
        for vhost in (settings.amqp_core_vhost, settings.amqp_pool_vhost):
            broker.delete(f"/api/vhosts/{vhost}").raise_for_status()


def management(settings: Settings) -> httpx.Client:
    """RabbitMQ's management API as the operator."""
    user, _, password = settings.amqp_url.get_secret_value().partition("//")[2].partition("@")[0].partition(":")
    return httpx.Client(base_url=settings.rabbitmq_api, auth=(user, password), timeout=ample(10.0))


@pytest.fixture(scope="session")
def running_api(api_settings: Settings) -> Iterator[Api]:
    clock = Clock()
    services = replace(Services.open(api_settings), clock=clock)
    # Without a chain the pool would hold once somebody has asked for its health and a minute has passed.
    probes = Probes.open(api_settings, load_key(api_settings), services.refusals.facts)
    services = replace(services, monitor=Monitor(probes, lambda: None))
    services.broker.prepare()
    services.store.ensure_indexes()
    services.challenges.ensure_indexes()
    application = create_app(services)
    servers = [
        _serve(api_settings, application, api_settings.api_port),
        _serve(api_settings, create_operations_app(services), api_settings.operations_port),
    ]
    wait_until(lambda: all(server.started for server, _ in servers), 10.0, what="the API")
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{api_settings.api_port}", timeout=ample(10.0)) as http,
        httpx.Client(base_url=f"http://127.0.0.1:{api_settings.operations_port}", timeout=ample(10.0)) as operations,
    ):
        yield Api(services, application, http, operations, clock)
    services.broker.dismiss_flower()
    for server, thread in servers:
        server.should_exit = True
        thread.join()


def _serve(settings: Settings, application: FastAPI, port: int) -> tuple[uvicorn.Server, threading.Thread]:
    server = http_server(settings, application, "127.0.0.1", port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    return server, thread


@pytest.fixture
def api(running_api: Api) -> Iterator[Api]:
    """The API with nothing stored and no worker enrolled."""
    # What the test before has left.
    _delete_all_rows(running_api)
    yield running_api
    running_api.services.rates.reset()
    running_api.clock.ahead = 0.0
    for key in (WORKER, STRANGER):
        running_api.services.broker.remove(key.wallet)


def _delete_all_rows(api: Api) -> None:
    stored = database(api.settings)
    for name in stored.list_collection_names():
        stored[name].delete_many({})


@pytest.fixture
def give(api: Api) -> Callable[..., TaskRecord]:
    """Stores a task that is given to WORKER."""

    def make(
        *, trust: int = 1, callback: str = ZERO_ADDRESS, task_id: TaskId = TASK, wallet: Wallet = WORKER.wallet
    ) -> TaskRecord:
        now = int(time.time())
        task = TaskRecord(
            task_id=task_id,
            deal_id=DealId("0x" + "22" * 32),
            index=int(task_id[-2:], 16),
            requester=REQUESTER.wallet,
            trust=trust,
            tag=ZERO_HASH,
            category_seconds=60,
            contribution_deadline=Timestamp(now + 420),
            final_deadline=Timestamp(now + 600),
            worker_stake=NRlc(0),
            callback=callback,  # type: ignore[arg-type]  # an address
            matched_block=BlockNumber(1),
            matched_at=Timestamp(now),
            replicates=(Replicate(wallet, Mode.SOLO if trust <= 1 else Mode.VOTE, weight=2, assigned_at=now),),
        )
        assert api.services.store.tasks.insert_new([task]) == 1
        return task

    return make


@pytest.fixture
def admin(api: Api) -> Iterator[httpx.Client]:
    """A client with the operator's token."""
    url = f"http://127.0.0.1:{api.settings.operations_port}/admin"
    headers = {"authorization": f"Bearer {operator_token(api.settings)}"}
    with http_client(url, timeout=60.0, headers=headers) as client:
        yield client


@pytest.fixture
def sluice(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Runs a command of `sluice` as the operator: exit code, and what it printed (parsed, with --json)."""
    monkeypatch.setenv("SLUICE_ADMIN_URL", f"http://127.0.0.1:{api.settings.operations_port}/")
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN", operator_token(api.settings))
    settings.cache_clear()

    def run(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        settings.cache_clear()
        code = cli.run(words)
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in words and out else out + err

    yield run
    settings.cache_clear()
