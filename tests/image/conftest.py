"""A pool whose scheduler and machines are containers of the image: the engine, the image, a chain, wallets."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from docker import DockerClient
from eth_account import Account

from bench.rig.bench_pool import BenchPool, prepared_pool
from ops.pool import servers
from ops.pool.on_chain import NewWallet
from ops.pool.site import Servers
from ops.stack import private_file
from protocol.poco.view import TaskStatus
from protocol.types import TaskId
from tests.image import base, confined
from tests.image.base import docker
from tests.waiting import ample, wait_until

#: Seconds between blocks, as in other pools of tests.
BLOCK_TIME = 0.5
#: The image's own user (docker/Dockerfile).
IMAGE_USER = 10001


@dataclass(frozen=True, slots=True)
class Image:
    """The image that docker/Dockerfile makes, on this engine."""

    tag: str
    host: str
    engine: DockerClient

    def state(self, name: str) -> dict[str, Any]:
        """What the engine says of a container's process."""
        found: dict[str, Any] = json.loads(docker(self.host, "inspect", "--format", "{{json .State}}", name).stdout)
        return found

    def ended(self, name: str) -> bool:
        """Whether a container has ended."""
        return bool(self.state(name)["Status"] == "exited")

    def restarted(self, name: str) -> bool:
        """Whether a container has ended, or the engine has started it again, as it may be told to."""
        return self.ended(name) or docker(self.host, "inspect", "--format", "{{.RestartCount}}", name).stdout != "0\n"

    def log(self, name: str) -> str:
        """What a container has written to both of its streams."""
        done = docker(self.host, "logs", name)
        return done.stdout + done.stderr

    @contextmanager
    def removed(self, *names: str) -> Iterator[None]:
        """Remove these containers with their volumes at the end, whatever became of them."""
        try:
            yield
        finally:
            docker(self.host, "rm", "--force", "--volumes", *names, check=False)


@pytest.fixture(scope="session")
def shared_servers() -> Servers:
    """MongoDB, RabbitMQ, Docker and IPFS of the local stack, started if they are not up."""
    return servers.bring_up()


@pytest.fixture(scope="session")
def image(shared_servers: Servers) -> Iterator[Image]:
    """docker/Dockerfile, built from the tree as it is."""
    engine = DockerClient(base_url=shared_servers.docker_host)
    try:
        yield Image(base.build(shared_servers.docker_host, engine), shared_servers.docker_host, engine)
    finally:
        engine.close()


@pytest.fixture(scope="session")
def bench_pool(image: Image, shared_servers: Servers) -> Iterator[BenchPool]:
    """Chain, contracts, wallets of two machines and virtual hosts of a pool; none of its programs runs."""
    with prepared_pool(block_time=BLOCK_TIME, workers=2, servers=shared_servers) as prepared:
        yield prepared


@pytest.fixture(scope="session")
def scheduler(image: Image, bench_pool: BenchPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of the container in which the pool's scheduler runs as in the compose file; its API answers."""
    name = f"sluice-scheduler-{secrets.token_hex(4)}"
    folder = tmp_path_factory.mktemp("secrets")
    keystore(folder, bench_pool.pool.on_chain.scheduler, names=("keystore", "keystore_password"), owner=IMAGE_USER)
    folder.chmod(0o755)
    with image.removed(name):
        docker(image.host, *confined.command(image.tag, name, bench_pool, folder))
        wait_until(lambda: image.ended(name) or _answers(bench_pool.pool.api_url), 30, what="the scheduler's API")
        assert not image.ended(name), image.log(name)
        yield name


def _answers(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/live", timeout=ample(2.0)).is_success
    except httpx.TransportError:
        return False


def keystore(folder: Path, wallet: NewWallet, *, names: tuple[str, str], owner: int) -> None:
    """Write a wallet's V3 keystore and its password into two files of a folder, for the user `owner` only."""
    secret = secrets.token_hex(16)
    encrypted = Account.encrypt(bytes.fromhex(wallet.secret), secret, kdf="pbkdf2", iterations=10)
    for name, text in zip(names, (json.dumps(encrypted), secret), strict=True):
        path = folder / name
        private_file.write(path, text)
        path.chmod(0o400)
        os.chown(path, owner, -1)


def needs(bench_pool: BenchPool) -> dict[str, str]:
    """What a machine of this pool is told besides the page's settings: all is on one machine without a registry."""
    own = ("SLUICE_LOCAL_IMAGES", "SLUICE_ALLOW_PRIVATE_DOWNLOADS")
    return {name: bench_pool.pool.env[name] for name in own} | {"SLUICE_SLOTS": "1"}


def does_a_task(bench_pool: BenchPool, failed: Callable[[], bool], log: Callable[[], str]) -> TaskId:
    """Buy one task and wait until it is completed on chain, or `failed` says that nobody will do it; returns its id."""
    (task,) = bench_pool.buy(trust=1, volume=1).tasks

    def completed() -> bool:
        (found,) = bench_pool.hub.tasks([task])
        return found.status is TaskStatus.COMPLETED

    wait_until(lambda: failed() or completed(), 60, what="the task to be completed")
    assert completed(), log()[-8000:]
    return task
