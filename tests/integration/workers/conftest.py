"""A real Docker engine, an app image with a shell and nothing else, and a pool's API that takes reports."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from docker import DockerClient

from config.settings import Settings, read_settings
from ops.demo.app_image import build_image
from ops.stack import tools
from ops.stack.servers import docker
from protocol.ethereum.signing import Key
from protocol.types import ZERO_ADDRESS
from protocol.wire import PoolConfig, Report, Session, Step
from tests.unit.workers.assignments import CHAIN_ID, SCHEDULER_KEY, WORKER_KEY, WORKERPOOL
from tests.waiting import ample
from workers.context import Machine, WorkerContext
from workers.pool.api import PoolApi
from workers.sandbox.engine.container import Engine

IMAGE = "sluice-test/shell:1"
#: Images that single tests build from it.
BUILT = ("sluice-test/foreign:1", "sluice-test/hostile:1", "sluice-test/user:1")
_DOCKERFILE = b'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n'


@pytest.fixture(scope="session")
def engine_host() -> str:
    """Address of a Docker engine with IMAGE: a shell and nothing else, no command of its own.

    The local stack's engine: others use it too, so it is left running.
    """
    return prepared(docker.start(tools.root() / ".sluice" / "stack" / "docker").host)


def prepared(host: str) -> str:
    """Have the engine at this address make IMAGE and the apps' network; its address."""
    client = DockerClient(base_url=host)
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in (("Dockerfile", _DOCKERFILE), ("busybox", tools.busybox().read_bytes())):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    build_image(client, context, tag=IMAGE)
    client.close()
    with closing(Engine(host)) as own:
        own.confine_apps()
    return host


@dataclass(slots=True)
class ReportingPool:
    """An HTTP server that takes reports as the pool's API does, and keeps them."""

    url: str = ""
    reports: list[tuple[str, Report]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def take(self, path: str, body: bytes) -> None:
        """Keep one report."""
        with self.arrived:
            self.reports.append((path.split("/")[2], Report.model_validate_json(body)))
            self.arrived.notify_all()

    def wait_for(self, step: Step) -> Report:
        """The first report of this step."""
        with self.arrived:
            found = self.arrived.wait_for(
                lambda: [report for _, report in self.reports if report.step is step], ample(20)
            )
        assert found, f"no report {step}"
        return next(report for _, report in self.reports if report.step is step)


@pytest.fixture
def pool() -> Iterator[ReportingPool]:
    """A pool's API that takes reports."""
    kept = ReportingPool()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.take(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kept
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def settings(engine_host: str, tmp_path: Path, pool: ReportingPool) -> Settings:
    """A machine's settings under a folder of its own."""
    return read_settings(
        home=tmp_path,
        docker_host=engine_host,
        api_url=pool.url,
        memory_per_slot=64 * 2**20,
        max_result_bytes=8 * 2**20,
        allow_private_downloads=True,
        local_images=",".join([IMAGE, *BUILT]),
        worker_name="test",
    )


def open_bench(settings: Settings, key: Key = WORKER_KEY, **pool: object) -> WorkerContext:
    """A machine's workbench, signed in already. `pool`: what its pool's `/config` says otherwise."""
    config: dict[str, object] = {
        "chain_id": CHAIN_ID,
        "hub": ZERO_ADDRESS,
        "workerpool": WORKERPOOL,
        "scheduler": SCHEDULER_KEY.wallet,
        "rpc_url": settings.rpc_url,
        "ws_url": None,
        "block_time": 1.0,
        "ipfs_gateway": settings.ipfs_gateway,
        "version": "test",
        "memory_per_slot": 64 * 2**20,
        "max_result_bytes": 8 * 2**20,
    }
    machine = Machine(settings, key, PoolConfig.model_validate(config | pool), PoolApi(settings.api_url))
    machine.layout.make()
    session = {
        "token": "token",
        "expires_at": 4_000_000_000,
        "broker": {
            "host": "127.0.0.1",
            "port": 1,
            "tls": False,
            "vhost": "pool",
            "username": key.wallet,
            "password": "none",
            "exchange": "x",
            "compute_queue": "x",
            "tx_queue": "x.tx",
        },
    }
    machine.layout.session.write_text(Session.model_validate(session).model_dump_json())
    return WorkerContext(machine)


@pytest.fixture
def context(settings: Settings) -> Iterator[WorkerContext]:
    """This process's workbench; its containers are removed after the test."""
    opened = open_bench(settings)
    yield opened
    for _, container in opened.engine.containers_of(WORKER_KEY.wallet):
        opened.engine.remove(container)
    opened.close()
    opened.machine.api.close()
