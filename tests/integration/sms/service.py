"""The secret service as a process of its own, with simulated sessions, on a real chain and MongoDB."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
from pymongo import MongoClient

from ops import cli
from ops.market.secrets import store_secret
from ops.stack import enclave_images, ports
from protocol.enclave.secrets import SecretId
from protocol.ethereum.signing import Key
from protocol.types import Signature
from sms.store.mongo import MongoSecretStore
from tests.integration import forged
from tests.integration.conftest import Chain
from tests.integration.workers.restarts.one_replicate import Point
from tests.waiting import ample, wait_until
from workers.sandbox.engine.container import Engine


def load_surroundings(docker_host: str) -> None:
    """Have our images of pre- and post-compute on an engine, built at the first call."""
    with closing(Engine(docker_host)) as engine:
        enclave_images.load(engine)


@dataclass
class Sms:
    """The service as a process."""

    environment: dict[str, str]
    url: str
    log: Path
    process: BaseProcess | None = None

    def start(self, point: Point | None = None) -> None:
        """Begin to serve; `point`: the operation of the store at which the process dies."""
        self.process = forged.start(_serve, point, env=self.environment, out=self.log)
        wait_until(self._answers, 20.0, what="the secret service")

    def kill(self) -> None:
        """End it, if it runs."""
        process, self.process = self.process, None
        if process is not None:
            forged.kill(process)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=ample(2.0)).status_code == 200
        except httpx.TransportError:
            return False

    def post(self, path: str, signature: Signature, **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, headers={"authorization": signature}, timeout=ample(10.0), **more)

    def keep(self, key: Key, secret: SecretId, value: bytes) -> None:
        """Store a secret as its owner."""
        store_secret(self.url, key, secret, value)


def _serve(point: Point | None) -> None:
    if point is not None:
        _die_at(point)
    sys.exit(cli.run(("sms", "run")))


def _die_at(point: Point) -> None:
    """Have this process killed before or after an operation of the store."""
    whole = getattr(MongoSecretStore, point.at)

    def struck(*given: Any) -> Any:
        if point.when == "after":
            whole(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(MongoSecretStore, point.at, struck)


@contextmanager
def serving(
    chain: Chain, mongodb_uri: str | None, home: Path, *, port: int | None = None, gateway: str | None = None
) -> Iterator[Sms]:
    """The service on `chain`, with a database of its own, which goes with it, or without MongoDB with a file in `home`.
    `gateway`: IPFS's, for bulks.
    """
    port = port or ports.free_port()
    home.mkdir(exist_ok=True)
    own = {
        "SLUICE_HOME": str(home),
        "SLUICE_RPC_URL": chain.node.rpc_url,
        "SLUICE_HUB": chain.at.hub,
        **(
            {"SLUICE_SMS_SQLITE_FILE": str(home / "sms.db")}
            if mongodb_uri is None
            else {"SLUICE_MONGODB_URI": mongodb_uri, "SLUICE_SMS_DATABASE": f"test_sms_{port}"}
        ),
        "SLUICE_SMS_PORT": str(port),
        "SLUICE_SMS_SIMULATION": "true",
        "SLUICE_LOG_LEVEL": "debug",
    } | ({} if gateway is None else {"SLUICE_IPFS_GATEWAY": gateway})
    service = Sms(own, f"http://127.0.0.1:{port}", home / "log")
    service.start()
    try:
        yield service
    finally:
        service.kill()
        if mongodb_uri is not None:
            with MongoClient[dict[str, Any]](mongodb_uri) as client:
                client.drop_database(own["SLUICE_SMS_DATABASE"])
