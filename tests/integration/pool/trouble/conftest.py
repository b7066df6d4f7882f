"""The pool of this folder, whose servers may be killed and whose scheduler may be lost."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from bench.rig.bench_pool import BenchPool, open_bench_pool
from ops.pool.site import Servers
from ops.stack import ports
from ops.stack.parts import StackPart
from ops.stack.servers import mongodb, rabbitmq
from tests.integration.pool.conftest import WAIT_SECONDS
from tests.waiting import ample

#: Seconds between blocks: the tests here wait for little else.
BLOCK_TIME = 0.5


class OwnServers:
    """A MongoDB and a RabbitMQ that may be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mongodb_port, self._rabbitmq_port = ports.free_port(), ports.free_port(rabbitmq.PORTS)
        self.mongodb, self.rabbitmq = self._up()

    def _up(self) -> tuple[mongodb.MongoDB, rabbitmq.RabbitMQ]:
        return (
            mongodb.start(self._folder / "mongodb", self._mongodb_port),
            rabbitmq.start(self._folder / "rabbitmq", self._rabbitmq_port),
        )

    def crash(self, part: StackPart) -> None:
        """`kill -9`, then start it again."""
        (self.mongodb if part is StackPart.MONGODB else self.rabbitmq).process.kill()
        self.mongodb, self.rabbitmq = self._up()

    def kill(self) -> None:
        """`kill -9` to both at once."""
        for process in (self.mongodb.process, self.rabbitmq.process):
            process.stop(how=signal.SIGKILL)

    def start(self) -> None:
        """Start both again."""
        self.mongodb, self.rabbitmq = self._up()

    def stop(self) -> None:
        """Without a clean end, which takes RabbitMQ 6 s: their data is not needed."""
        for process in (self.rabbitmq.process, self.rabbitmq.port_mapper, self.mongodb.process):
            process.stop(how=signal.SIGKILL)


@pytest.fixture(scope="package")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServers]:
    servers = OwnServers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.stop()


#: On the session: a test has failed, so that nothing is known of the pool that it used.
_SPOILT = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.session.stash[_SPOILT] = True
    return report


class PoolUntilSpoilt:
    """A pool of two machines with two slots each, for all tests until one fails; then another."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._opened = ExitStack()
        self._pool: BenchPool | None = None

    def get(self, *, spoilt: bool) -> BenchPool:
        if spoilt:
            self.close()
        if self._pool is None:
            env = {"SLUICE_PING_SECONDS": "2"}
            opening = open_bench_pool(block_time=BLOCK_TIME, workers=2, slots=2, env=env, servers=self._servers)
            self._pool = self._opened.enter_context(opening)
            self._pool.timeout = ample(WAIT_SECONDS)
        return self._pool

    def close(self) -> None:
        self._pool = None
        self._opened.close()


@pytest.fixture(scope="package")
def pool_until_spoilt(shared_servers: Servers, own: OwnServers) -> Iterator[PoolUntilSpoilt]:
    servers = replace(
        shared_servers,
        mongodb_uri=own.mongodb.uri,
        amqp_url=own.rabbitmq.amqp_url,
        amqp_port=own.rabbitmq.port,
        amqp_public={},
        rabbitmq_api=own.rabbitmq.api_url,
    )
    with closing(PoolUntilSpoilt(servers)) as pool:
        yield pool


@pytest.fixture
def bench_pool(pool_until_spoilt: PoolUntilSpoilt, request: pytest.FixtureRequest) -> BenchPool:
    """A pool of two machines with two slots each, in which every test before has passed."""
    stash = request.session.stash
    spoilt = stash.get(_SPOILT, False)
    stash[_SPOILT] = False
    return pool_until_spoilt.get(spoilt=spoilt)
