"""A machine that is killed or stopped at each step of a replicate, and started again: real containers, real contracts.

However often and wherever that is: one container is made for the replicate, the vote is revealed, and no stake is lost.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from docker import DockerClient

from chain.contracts import calls
from config.settings import read_settings
from ops.market.match import Matched
from ops.poco.state import CHAIN_ID, PocoState
from ops.stack import tools
from pipeline.api.results.result_zip import check_result
from protocol.assignment import sign_assignment
from protocol.poco.authorization import sign_authorization
from protocol.poco.seal import result_hash
from protocol.poco.view import ContributionStatus, TaskStatus
from protocol.types import TaskId
from protocol.wire import Mode, Ping, Pong, ResultLink, Stored
from tests.faulty import Answer
from tests.faulty.http import Handler, beside
from tests.faulty.registry import blobs_of, layer, registry
from tests.integration import forged
from tests.integration.chain.test_poco_life import RESULTS, Shop, open_shop
from tests.integration.conftest import IpfsNode, standing_still
from tests.integration.workers import one_replicate
from tests.integration.workers.conftest import IMAGE
from tests.integration.workers.one_replicate import Orders, Point, Stop
from tests.integration.workers.test_images import stored
from tests.unit.workers.assignments import assignment
from tests.waiting import ample
from workers.data.layout import layout_of
from workers.sandbox.engine.container import Engine
from workers.sandbox.spec import LABEL_TASK
from workers.task.journal import Journal
from workers.task.own_copy import LAST_SECONDS

#: Category XS, so that no deadline is near: an hour and more for contributions.
CATEGORY = 0
SECONDS = 300
RESULT = 'echo {\\"deterministic-output-path\\": \\"/iexec_out/r\\"} > /iexec_out/computed.json'
APP = f"cat /iexec_in/* > /iexec_out/r; {RESULT}; echo printed"


@dataclass(frozen=True, slots=True)
class Life:
    """One replicate, and where its machine stops, one start after the other, each point by what has just happened.

    Operations are counted from each start; what a start repeats is no harm: the lane takes an intent once.
    """

    points: dict[str, Point]
    mode: Mode = Mode.VOTE
    stop: Stop = Stop.KILL


EACH_STEP = {
    "assignment received": Point("journal.add", "before"),
    "inputs fetched": Point("journal.mark_running", "before"),
    "container made": Point("engine.create"),
    "container ended": Point("engine.wait"),
    "result packed": Point("journal.mark_computed", "before"),
    "vote in the lane": Point("lane_store.add"),
    "contribute signed": Point("lane_store.claim"),
    "contribute mined": Point("rpc.evm_mine"),
    "reveal in the lane": Point("lane_store.add"),
    "reveal signed": Point("lane_store.claim"),
    "reveal mined": Point("rpc.evm_mine"),
    "result uploaded": Point("pool.put_result"),
    "task over in the journal": Point("journal.end"),
}
LIVES = {
    "killed": Life(EACH_STEP),
    "stopped, and each step cut off": Life(EACH_STEP, stop=Stop.CUT),
    "killed a moment later": Life(
        {
            "assignment in the journal": Point("journal.add"),
            "image pulled": Point("engine.load"),
            "container in the journal": Point("journal.mark_running", times=2),
            "container started": Point("engine.start"),
            "output read": Point("engine.printed"),
            "result in the journal": Point("journal.mark_computed"),
            "vote in the journal": Point("journal.mark_committed"),
            "contribute sent": Point("rpc.eth_sendRawTransaction"),
            "reveal asked for": Point("lane_store.add", "before"),
            "reveal in the journal": Point("journal.mark_revealed"),
            "reveal sent": Point("rpc.eth_sendRawTransaction"),
            "upload in the journal": Point("journal.mark_uploaded"),
            "task known to be over": Point("pool.ping"),
        }
    ),
    "killed at the container's end": Life({"container removed": Point("engine.remove")}),
    "killed, and alone": Life(
        {
            "result uploaded": Point("pool.put_result"),
            "upload in the journal": Point("journal.mark_uploaded"),
            "result in the lane": Point("lane_store.add"),
            "result sent": Point("rpc.eth_sendRawTransaction"),
            "result mined": Point("rpc.evm_mine"),
        },
        Mode.SOLO,
    ),
    # A step that ends in time ends whole, so that of each message and timer one operation counts at a time.
    "stopped": Life(
        {
            "container started": Point("engine.start"),
            "contribute sent": Point("rpc.eth_sendRawTransaction"),
            "reveal in the lane": Point("lane_store.add"),
            "reveal mined": Point("rpc.evm_mine"),
            "result uploaded": Point("pool.put_result"),
            "task known to be over": Point("pool.ping"),
        },
        stop=Stop.CLEAN,
    ),
    "stopped elsewhere": Life(
        {
            "container ended": Point("engine.wait"),
            "contribute mined": Point("rpc.evm_mine"),
            "reveal in the journal": Point("journal.mark_revealed"),
            "reveal signed": Point("lane_store.claim"),
            "upload in the journal": Point("journal.mark_uploaded"),
            "task over in the journal": Point("journal.end"),
        },
        stop=Stop.CLEAN,
    ),
}


@dataclass(slots=True)
class PlayedPool:
    """A pool's API that serves an input file, takes reports and results, finalizes, and says what is over."""

    shop: Shop
    url: str = ""
    stored: dict[str, list[str]] = field(default_factory=dict)
    #: Whether it can store results.
    stores: bool = True

    def store(self, task: TaskId, zipped: bytes) -> Stored:
        with tempfile.NamedTemporaryFile() as file:
            file.write(zipped)
            file.flush()
            digest = check_result(Path(file.name), callback=False).digest
        self.stored.setdefault(task, []).append(digest)
        if self.shop.view(task).status is TaskStatus.REVEALING:
            self.shop.send(self.shop.owner, "finalize", calls.finalize(task, RESULTS))
        return Stored(link=ResultLink(storage="ipfs", location="/ipfs/QmResult"), digest=digest)

    def answer(self, ping: Ping) -> Pong:
        over = [task for task in ping.tasks if self.shop.view(TaskId(task)).status is TaskStatus.COMPLETED]
        return Pong(forget=over, abort=[])


@contextmanager
def serving(shop: Shop) -> Iterator[PlayedPool]:
    pool = PlayedPool(shop)

    class Api(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            self.send(Answer(200, b"input"))

        def do_POST(self) -> None:  # noqa: N802 - the library's name
            body = self._body()
            if self.path == "/workers/ping":
                self.send(Answer(200, pool.answer(Ping.model_validate_json(body)).model_dump_json().encode()))
            else:
                self.send(Answer(204, b""))

        def do_PUT(self) -> None:  # noqa: N802 - the library's name
            if not pool.stores:
                self._body()
                self.send(Answer(503, b'{"error": "Could not reach IPFS"}'))
                return
            stored = pool.store(TaskId(self.path.split("/")[2]), self._body())
            self.send(Answer(200, stored.model_dump_json().encode()))

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["content-length"]))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    pool.url = f"http://127.0.0.1:{server.server_port}"
    with beside(server):
        yield pool


@dataclass(slots=True)
class Scene:
    """One machine for all cases, with a task for each."""

    shop: Shop
    pool: PlayedPool
    deal: Matched
    engine: str
    registry: str
    home: Path
    begun: int = 0

    def orders(self, life: Life, *, own_node: str | None = None, **fields: object) -> Orders:
        """The next task of the deal, for the machine. `own_node`: API of its own IPFS node; `fields`: of the
        assignment.
        """
        task, index = self.deal.tasks[self.begun], self.begun
        self.begun += 1
        shop, wallet = self.shop, self.shop.worker(0).wallet
        pulled = Point("engine.load") in life.points.values()
        params: dict[str, object] = {"iexec_input_files": [f"{self.pool.url}/in"]}
        if not pulled:
            params["iexec_args"] = f"sh -c '{APP}'"
        wanted = assignment(
            1,
            task_id=task,
            deal_id=self.deal.deal_id,
            index=index,
            mode=life.mode,
            wallet=wallet,
            image=f"{self.registry}/app:1" if pulled else IMAGE,
            params=json.dumps(params),
            category_seconds=SECONDS,
            authorization=sign_authorization(shop.owner.key, wallet, task),
            **fields,
        )
        settings = read_settings(
            home=self.home,
            docker_host=self.engine,
            api_url=self.pool.url,
            chain_id=CHAIN_ID,
            hub=shop.chain.at.hub,
            rpc_url=shop.chain.node.rpc_url,
            memory_per_slot=64 * 2**20,
            allow_private_downloads=True,
            local_images=IMAGE,
            worker_name="test",
            worker_ipfs_api=own_node,
        )
        pool: dict[str, object] = {
            "hub": shop.chain.at.hub,
            "workerpool": shop.pool.lower(),
            "scheduler": shop.owner.wallet,
        }
        signed = sign_assignment(shop.owner.key, wanted, CHAIN_ID, shop.pool)
        return Orders(settings, self.shop.worker(0).key._private.to_hex(), pool, signed)

    @property
    def _log(self) -> Path:
        return self.home.parent / "log"

    def log(self) -> str:
        """The last of what the machine has said."""
        return "\n".join(self._log.read_text().splitlines()[-20:])

    def run(self, orders: Orders) -> int | None:
        """Exit code of a process that does as ordered."""
        process = forged.start(one_replicate.main, orders, out=self._log)
        process.join(ample(60.0))
        code = process.exitcode
        forged.kill(process)
        return code


@pytest.fixture(scope="module")
def scene(poco_state: PocoState, engine_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("machine")
    script = f"#!/bin/busybox sh\n/bin/busybox cp /iexec_in/* /iexec_out/r; {RESULT}\n"
    blobs = blobs_of(layer({"bin/busybox": tools.busybox().read_bytes(), "app": script.encode()}))
    with (
        standing_still(poco_state, folder / "anvil") as chain,
        registry(lambda *_: None, blobs=blobs) as host,
    ):
        shop = open_shop(chain)
        deal = shop.buy(trust=1, volume=len(LIVES) + 1, category=CATEGORY)
        shop.initialize(deal)
        with serving(shop) as pool:
            yield Scene(shop, pool, deal, engine_host, host, folder / "home")
    with closing(Engine(engine_host)) as engine:
        for _, container in engine.containers_of(shop.worker(0).wallet):
            engine.remove(container)
        for image in stored(layout_of(folder / "home", shop.worker(0).wallet)):
            engine.remove_image(image)


def made(host: str, task: str, since: float) -> int:
    """How many containers the engine has made for a task since then."""
    filters = {"type": "container", "event": "create", "label": f"{LABEL_TASK}={task}"}
    with closing(DockerClient(base_url=host)) as client:
        # Its stub knows whole seconds only.
        api: Any = client
        return len(list(api.events(since=f"{since:.6f}", until=f"{time.time():.6f}", filters=filters)))


@pytest.mark.parametrize("name", LIVES)
def test_a_machine_that_stops_at_each_step_makes_one_container_and_loses_no_stake(scene: Scene, name: str) -> None:
    begun, life = time.time(), LIVES[name]
    orders = scene.orders(life)
    task, wallet = TaskId(orders.assignment.task_id), scene.shop.worker(0).wallet
    before = scene.shop.chain.hub.account(wallet)

    orders.begin()
    for what, point in life.points.items():
        code = scene.run(replace(orders, point=point, stop=life.stop))
        assert code == (-signal.SIGKILL if life.stop is Stop.KILL else 0), f"{what}: {scene.log()}"
        assert orders.reached.exists(), f"{what}: {scene.log()}"
        orders.reached.unlink()
    assert scene.run(orders) == 0, scene.log()

    assert made(scene.engine, task, begun) == 1
    view = scene.shop.view(task)
    assert view.status is TaskStatus.COMPLETED
    (vote,) = view.contributions
    assert vote.status is ContributionStatus.REVEALED
    assert len(set(scene.pool.stored[task])) == 1
    after = scene.shop.chain.hub.account(wallet)
    assert after.locked == 0
    assert after.stake > before.stake
    layout = layout_of(orders.settings.home, wallet)
    with closing(Journal(layout.journal)) as journal:
        assert journal.find(task) is None
    assert not layout.task(task).root.exists()


def test_a_trust_1_result_that_the_pool_does_not_store_in_time_is_paid_and_found_at_the_machines_own_node(
    scene: Scene, ipfs: IpfsNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scene.pool, "stores", False)
    soon = int(time.time() + LAST_SECONDS - 5)
    orders = scene.orders(Life({}, Mode.SOLO), own_node=ipfs.api, contribution_deadline=soon)
    task, wallet = TaskId(orders.assignment.task_id), scene.shop.worker(0).wallet
    before = scene.shop.chain.hub.account(wallet)
    orders.begin()
    assert scene.run(orders) == 0, scene.log()

    view = scene.shop.view(task)
    assert view.status is TaskStatus.COMPLETED
    assert scene.shop.chain.hub.account(wallet).stake > before.stake
    assert task not in scene.pool.stored
    link = ResultLink.model_validate_json(bytes.fromhex(view.results[2:]))
    found = tmp_path / "result.zip"
    found.write_bytes(httpx.get(f"{ipfs.gateway}{link.location}", timeout=ample(10)).content)
    (vote,) = view.contributions
    assert result_hash(task, check_result(found, callback=False).digest) == vote.result_hash
