"""A machine with simulated enclaves that is killed at each step of a confidential task, with the real secret service,
engine and contracts; and everything that is left, searched for the secrets.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import signal
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from docker import DockerClient
from pymongo import MongoClient

from config.settings import read_settings
from ops.market import contracts, orders
from ops.market.match import Matched, match
from ops.market.orders import Offer
from ops.poco.state import CHAIN_ID, PocoState
from ops.stack.stack import Stack
from protocol.assignment import sign_assignment
from protocol.enclave.cipher import decrypted, encrypted
from protocol.enclave.secrets import RESULT_KEY_NAME, app_secret, dataset_key, requester_secret, wallet_secret
from protocol.ethereum.hexbytes import to_bytes
from protocol.poco.authorization import sign_authorization
from protocol.poco.enclave import challenge_request
from protocol.poco.orders import NO_DATASET, AppOrder, DatasetOrder
from protocol.poco.seal import result_hash
from protocol.poco.view import TaskStatus
from protocol.results.attestation import Attestation
from protocol.results.digest import file_digest
from protocol.types import ZERO_ADDRESS, Contract, Hash32, TaskId, Wallet
from protocol.wire import Dataset, Mode, Ping, Pong, ResultLink, Stored
from tests.faulty import Answer
from tests.faulty.http import Handler, beside
from tests.integration import forged
from tests.integration.chain.test_poco_life import Shop, open_shop
from tests.integration.conftest import IpfsNode, standing_still
from tests.integration.sms.service import Sms, load_surroundings, serving
from tests.integration.workers.conftest import IMAGE, engine_host
from tests.integration.workers.restarts import one_replicate
from tests.integration.workers.restarts.one_replicate import Orders, Point
from tests.unit.workers.assignments import assignment
from tests.waiting import ample, until
from workers.care import left_enclaves
from workers.data.layout import layout_of
from workers.sandbox.engine.container import Engine

__all__ = ["engine_host"]

TDX_TAG = Hash32("0x" + "0" * 63 + "9")
#: Tasks of the confidential deal.
TASKS = 7
#: Category XS, so that no deadline is near.
CATEGORY, SECONDS = 0, 300
ROWS = b"rows-that-nobody-but-the-enclave-may-read\n" * 100
KEY = bytes(range(32))
DEVELOPERS, REQUESTERS = "planted-secret-of-the-developer", "planted-secret-of-the-requester"
#: Nothing of these may be found anywhere but in the app's container while it runs.
SECRETS = (base64.b64encode(KEY), DEVELOPERS.encode(), REQUESTERS.encode())
SEALED = b"".join(encrypted([ROWS], KEY, b"\x01" * 16))
CHECKSUM = Hash32("0x" + hashlib.sha256(SEALED).hexdigest())
#: Proves that it had all of them without saying them.
APP = (
    "(cat $IEXEC_IN/$IEXEC_DATASET_FILENAME; printf %s $IEXEC_APP_DEVELOPER_SECRET $IEXEC_REQUESTER_SECRET_1)"
    ' | sha256sum > /iexec_out/r; echo {\\"deterministic-output-path\\": \\"/iexec_out/r\\"} > /iexec_out/computed.json'
)
ANSWER = f"{hashlib.sha256(ROWS + SECRETS[1] + SECRETS[2]).hexdigest()}  -\n".encode()
POINTS = {
    "assignment received": Point("journal.add", "before"),
    "pre-compute's container made": Point("engine.create"),
    "pre-compute's variables sent": Point("engine.start"),
    "session taken and dataset decrypted": Point("journal.mark_running", "before"),
    "container made": Point("engine.create"),
    "container about to start": Point("engine.start", "before"),
    "container started, and its variables sent": Point("engine.start"),
    "container ended": Point("engine.wait"),
    # After two that pre-compute may have left.
    "app's container removed": Point("engine.remove", times=3),
    "post-compute's container made": Point("engine.create"),
    "post-compute's variables sent": Point("engine.start"),
    "result encrypted and signed": Point("journal.mark_computed", "before"),
    "result uploaded": Point("pool.put_result"),
    "result in the lane": Point("lane_store.add"),
    "result mined": Point("rpc.evm_mine"),
}


@dataclass
class PlayedPool:
    """A pool's API that serves the dataset, takes reports and enclaves' results, and says what is over."""

    shop: Shop
    url: str = ""
    said: list[bytes] = field(default_factory=list)
    stored: list[tuple[Attestation, bytes]] = field(default_factory=list)

    def answer(self, ping: Ping) -> Pong:
        over = [task for task in ping.tasks if self.shop.view(TaskId(task)).status is TaskStatus.COMPLETED]
        return Pong(forget=over, abort=[])


@contextmanager
def played(shop: Shop) -> Iterator[PlayedPool]:
    pool = PlayedPool(shop)

    class Api(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            self.send(Answer(200, SEALED))

        def do_POST(self) -> None:  # noqa: N802 - the library's name
            body = self._body()
            pool.said.append(body)
            if self.path == "/workers/ping":
                self.send(Answer(200, pool.answer(Ping.model_validate_json(body)).model_dump_json().encode()))
            else:
                self.send(Answer(204, b""))

        def do_PUT(self) -> None:  # noqa: N802 - the library's name
            attested = Attestation.of(dict(self.headers.items()))
            pool.stored.append((attested, self._body()))
            stored = Stored(link=ResultLink(storage="ipfs", location="/ipfs/QmResult"), digest=attested.digest)
            self.send(Answer(200, stored.model_dump_json().encode()))

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["content-length"]))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    pool.url = f"http://127.0.0.1:{server.server_port}"
    with beside(server):
        yield pool


@dataclass
class Scene:
    """One machine, a pool, the secret service, and a confidential deal with a task for each test."""

    shop: Shop
    pool: PlayedPool
    sms: Sms
    deal: Matched
    params: str
    #: None: the deal has a bulk in its place.
    dataset: str | None
    engine: str
    mongodb: str
    folder: Path
    beneficiary: RSAPrivateKey
    #: Of the deal: the contract that gets its results.
    callback: Contract = ZERO_ADDRESS

    def orders(self, index: int) -> Orders:
        shop, wallet, task = self.shop, self.shop.worker(0).wallet, self.deal.tasks[index]
        ask = shop.owner.key.sign_message(to_bytes(challenge_request(task)))
        challenge = Wallet(self.sms.post(f"/tee/challenges/{task}", ask).raise_for_status().text.lower())
        wanted = assignment(
            1,
            task_id=task,
            deal_id=self.deal.deal_id,
            index=index,
            mode=Mode.SOLO,
            tag=TDX_TAG,
            wallet=wallet,
            image=IMAGE,
            dataset=self.dataset and Dataset(address=self.dataset, url=f"{self.pool.url}/dataset", checksum=CHECKSUM),
            params=self.params,
            callback=self.callback,
            category_seconds=SECONDS,
            enclave_challenge=challenge,
            authorization=sign_authorization(shop.owner.key, wallet, task, challenge),
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
            enclave="simulated",
            log_level="debug",
        )
        config: dict[str, object] = {
            "hub": shop.chain.at.hub,
            "workerpool": shop.pool.lower(),
            "scheduler": shop.owner.wallet,
            "sms_url": self.sms.url,
        }
        signed = sign_assignment(shop.owner.key, wanted, CHAIN_ID, shop.pool)
        return Orders(settings, shop.worker(0).key._private.to_hex(), config, signed)

    @property
    def home(self) -> Path:
        return self.folder / "machine" / "home"

    @property
    def log(self) -> Path:
        return self.folder / "machine" / "log"

    def run(self, orders: Orders) -> int | None:
        """Exit code of a machine's process that does as ordered."""
        process = forged.start(one_replicate.main, orders, out=self.log)
        process.join(ample(60.0))
        code = process.exitcode
        forged.kill(process)
        return code

    def no_trace(self, *values: bytes) -> None:
        """None of the values is in files and logs of machine and service, in what the pool was told, or in MongoDB."""
        files = [path for name in ("machine", "sms") for path in (self.folder / name).rglob("*") if path.is_file()]
        places = {str(path): path.read_bytes() for path in files}
        places |= {f"said {number}": body for number, body in enumerate(self.pool.said)}
        with MongoClient[dict[str, Any]](self.mongodb) as client:
            db = client[self.sms.environment["SLUICE_SMS_DATABASE"]]
            for name in db.list_collection_names():
                places[f"collection {name}"] = repr(list(db[name].find())).encode()
        assert places
        assert not [(place, value) for place, content in places.items() for value in values if value in content]

    def nothing_to_inspect(self) -> None:
        """No container of the machine that has ended, or never ran, is left."""
        with closing(Engine(self.engine)) as engine:
            containers = [container for _, container in engine.containers_of(self.shop.worker(0).wallet)]
            assert not [container for container in containers if not engine.state(container).running]

    def no_container(self) -> None:
        """The engine has no container of the machine, and what it keeps of others does not know the secrets."""
        with closing(Engine(self.engine)) as engine:
            wallet = self.shop.worker(0).wallet
            until("the containers' removal", lambda: not engine.containers_of(wallet), 10)
        with closing(DockerClient(base_url=self.engine)) as client:
            api: Any = client.api
            told = json.dumps([api.inspect_container(each["Id"]) for each in api.containers(all=True)]).encode()
        assert not [value for value in SECRETS if value in told]


@pytest.fixture(scope="module")
def scene(
    poco_state: PocoState, stack: Stack, ipfs: IpfsNode, engine_host: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("enclaves")
    load_surroundings(engine_host)
    with standing_still(poco_state, folder / "anvil") as chain:
        shop = open_shop(chain)
        params = {
            "iexec_args": f"sh -c '{APP}'",
            "iexec_secrets": {"1": "mine"},
            "iexec_result_encryption": True,
            "iexec_result_storage_provider": "ipfs",
        }
        mongodb = stack.settings["SLUICE_MONGODB_URI"]
        (folder / "machine").mkdir()
        with played(shop) as pool, serving(chain, mongodb, folder / "sms", gateway=ipfs.gateway) as sms:
            deal, dataset = bought(shop, pool, json.dumps(params))
            shop.initialize(deal)
            sms.keep(shop.owner.key, dataset_key(dataset), SECRETS[0])
            sms.keep(shop.owner.key, app_secret(shop.app), SECRETS[1])
            sms.keep(shop.requester.key, requester_secret(shop.requester.wallet, "mine"), SECRETS[2])
            key = generate_private_key(65537, 2048)
            public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            result_key = wallet_secret(shop.requester.wallet, RESULT_KEY_NAME)
            sms.keep(shop.requester.key, result_key, base64.b64encode(public))
            yield Scene(shop, pool, sms, deal, json.dumps(params), dataset, engine_host, mongodb, folder, key)


def bought(shop: Shop, pool: PlayedPool, params: str) -> tuple[Matched, str]:
    """A confidential deal, and its dataset."""
    market, key = shop.chain.market, shop.owner.key
    (dataset,) = contracts.create(
        shop.owner, shop.chain.at, [contracts.NewDataset("rows", f"{pool.url}/dataset", CHECKSUM)]
    )
    return confidential(shop, params, orders.offer_dataset(market, key, dataset)), dataset


def confidential(
    shop: Shop, params: str, dataset: DatasetOrder, *, volume: int = TASKS, callback: Contract = ZERO_ADDRESS
) -> Matched:
    """A confidential deal of so many tasks."""
    market, key = shop.chain.market, shop.owner.key
    app = AppOrder(app=shop.app, volume=volume, tag=TDX_TAG, salt=orders.salt()).signed(
        key, market.chain_id, market.hub
    )
    work = orders.offer_work(market, key, shop.pool, category=CATEGORY, tag=TDX_TAG, trust=1)
    offer = Offer(app, work, dataset)
    request = orders.request(
        market, shop.requester.key, offer, volume=volume, params=params, callback=callback, tag=TDX_TAG
    )
    return match(shop.requester, market, [(offer, request)])[0]


def test_a_machine_killed_at_each_step_of_a_confidential_task_completes_it_and_leaves_no_secret(scene: Scene) -> None:
    given = scene.orders(0)
    task = TaskId(given.assignment.task_id)
    given.begin()
    for what, point in POINTS.items():
        code = scene.run(replace(given, point=point))
        assert code == -signal.SIGKILL, f"{what}: {said(scene)}"
        assert given.reached.exists(), f"{what}: {said(scene)}"
        given.reached.unlink()
        # Not even while the task is under way.
        scene.no_trace(*SECRETS)
        # As the next start does before anything else.
        left_enclaves.clear(
            layout_of(scene.home, scene.shop.worker(0).wallet), scene.shop.worker(0).wallet, scene.engine
        )
        scene.nothing_to_inspect()
    assert scene.run(given) == 0, said(scene)

    view = scene.shop.view(task)
    assert view.status is TaskStatus.COMPLETED
    digest = file_digest(hashlib.sha256(ANSWER).digest())
    assert view.consensus == result_hash(task, digest)
    attested, stored = scene.pool.stored[-1]
    assert attested.digest == digest
    attested.require_by(Wallet(given.assignment.enclave_challenge), scene.shop.worker(0).wallet, task)
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:
        secret = scene.beneficiary.decrypt(archive.read("aes-key.rsa"), PKCS1v15())
        content = b"".join(decrypted([archive.read("iexec_out.zip.aes")], secret))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("r") == ANSWER
    scene.no_container()
    scene.no_trace(*SECRETS, ROWS[:40], ANSWER)
    assert not layout_of(scene.home, scene.shop.worker(0).wallet).task(task).root.exists()


def test_a_secret_service_that_was_killed_is_asked_again_until_it_is_back(scene: Scene) -> None:
    given = scene.orders(1)
    given.begin()
    scene.sms.kill()
    process = forged.start(one_replicate.main, given, out=scene.log)
    try:
        until("the machine to wait for a session", lambda: b"session_awaited" in scene.log.read_bytes())
    finally:
        scene.sms.start()
    process.join(ample(60.0))
    assert process.exitcode == 0, said(scene)
    forged.kill(process)
    assert scene.shop.view(TaskId(given.assignment.task_id)).status is TaskStatus.COMPLETED
    scene.no_trace(*SECRETS)


def test_a_task_of_a_bulk_gets_the_datasets_of_its_slice(scene: Scene, ipfs: IpfsNode) -> None:
    shop, market = scene.shop, scene.shop.chain.market
    wanted = [contracts.NewDataset(name, f"{scene.pool.url}/dataset", CHECKSUM) for name in ("one", "two", "other")]
    free = [
        DatasetOrder(dataset=dataset, volume=2**53 - 1, tag=TDX_TAG, salt=orders.salt()).signed(
            shop.owner.key, market.chain_id, market.hub
        )
        for dataset in contracts.create(shop.owner, shop.chain.at, wanted)
    ]
    for order in free:
        scene.sms.keep(shop.owner.key, dataset_key(order.dataset), SECRETS[0])
    slices = [put(ipfs, [order.to_json() for order in each]) for each in (free[2:], free[:2])]
    app = APP.replace("$IEXEC_DATASET_FILENAME", "$IEXEC_DATASET_1_FILENAME $IEXEC_IN/$IEXEC_DATASET_2_FILENAME")
    params = json.loads(scene.params) | {"bulk_cid": put(ipfs, slices), "iexec_args": f"sh -c '{app}'"}
    deal = confidential(shop, json.dumps(params), NO_DATASET)
    shop.initialize(deal)
    given = replace(scene, deal=deal, params=json.dumps(params), dataset=None).orders(1)
    given.begin()
    assert scene.run(given) == 0, said(scene)
    answer = f"{hashlib.sha256(ROWS + ROWS + SECRETS[1] + SECRETS[2]).hexdigest()}  -\n".encode()
    task = deal.tasks[1]
    assert scene.shop.view(task).consensus == result_hash(task, file_digest(hashlib.sha256(answer).digest()))
    scene.no_trace(*SECRETS, ROWS[:40])


def put(ipfs: IpfsNode, content: object) -> str:
    """A JSON file's CID in IPFS."""
    answer = httpx.post(f"{ipfs.api}/api/v0/add", files={"file": json.dumps(content).encode()}, timeout=ample(10.0))
    return str(answer.raise_for_status().json()["Hash"])


def said(scene: Scene) -> str:
    """The last of what the machine has said."""
    return "\n".join(scene.log.read_text().splitlines()[-20:])
