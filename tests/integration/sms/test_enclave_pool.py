"""Tasks for enclaves in a pool: from the deal to the result that its beneficiary alone can read.

Chain, MongoDB, RabbitMQ, IPFS, the pool's API and the secret service, which is a process of its own, are real; the
scheduler is stepped by hand, and the machine with the enclave is played over HTTP.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kombu import Connection
from pymongo import MongoClient

from chain.contracts import calls
from config.http_server.server import http_server
from config.settings import read_settings
from ops.market.match import Matched
from ops.poco.sender import TxRequest
from ops.poco.state import PocoState
from ops.stack import ports
from ops.stack.stack import Stack
from pipeline.api.application import create_app
from pipeline.api.services import Services
from pipeline.domain.records import TaskRecord, TaskStage
from pipeline.flow.reasons import reasons
from protocol.enclave.cipher import decrypted
from protocol.enclave.result import CONTENT_FILE, KEY_FILE, read_public_key, write_encrypted
from protocol.enclave.secrets import RESULT_KEY_NAME, STORE_NAME, wallet_secret
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.signing import Key
from protocol.poco.authorization import recover_authorization
from protocol.poco.enclave import sign_result
from protocol.poco.tags import TDX_BITS, make_tag
from protocol.poco.view import TaskStatus
from protocol.results.attestation import Attestation
from protocol.results.digest import file_digest
from protocol.results.error_result import LOST_CHALLENGE, NO_SESSION
from protocol.signin import SignIn
from protocol.types import ZERO_ADDRESS, Contract, Signature, TaskId, Wallet
from protocol.wire import (
    PROTOCOL,
    PROTOCOL_HEADER,
    Assignment,
    Capabilities,
    Challenge,
    Login,
    Mode,
    PoolConfig,
    Report,
    Session,
    Step,
    Stored,
)
from sms.challenges import challenge_place
from tests.integration.conftest import IpfsNode, _database, given
from tests.integration.pipeline.conftest import REQUESTER, WORKERS
from tests.integration.pipeline.trouble.outage_pool import LONG, MOST_STEPS, OutagePool, open_outage_pool
from tests.integration.sms.service import Sms, serving
from tests.integration.sms.stock_sdks import fetch_session, session_request
from tests.waiting import ample, wait_until

TDX = make_tag(*TDX_BITS)
ENCRYPTED = json.dumps({"iexec_result_encryption": True})
CONTENT = b"what nobody but the beneficiary may read"
DIGEST = file_digest(b"\x07" * 32)
#: Seconds of every clock in one step: few, so that a machine that signed in is not lost meanwhile.
STEP = 3.0


@dataclass
class Place:
    """A pool that serves enclaves, with a deal of two such tasks, bought while its secret service is away."""

    pool: OutagePool
    secrets: Sms
    api: httpx.Client
    sealed: Matched
    plain: Matched
    #: Which of the chain's machines it is that has an enclave.
    number: int = 1
    session: Session | None = None
    #: What the machine was given, by task.
    given: dict[TaskId, Assignment] = field(default_factory=dict)

    @property
    def machine(self) -> Key:
        """The wallet of the machine with the enclave."""
        return self.pool.chain.sender(WORKERS[self.number]).key

    @property
    def bearer(self) -> dict[str, str]:
        assert self.session is not None
        return {"authorization": f"Bearer {self.session.token}"}

    def step(self) -> None:
        """Some seconds of everybody's life, after all answers of the secret service have come."""
        challenges = self.pool.scheduler.challenges
        assert challenges is not None
        assert challenges._background.flush(ample(10.0))
        self.pool.step(STEP)
        if self.session is not None:
            self.api.post("/workers/ping", json={"tasks": []}, headers=self.bearer).raise_for_status()

    def tasks(self) -> list[TaskRecord]:
        """The tasks for enclaves as they are stored, by index."""
        return self.pool.store.tasks.of_deal(self.sealed.deal_id)

    def says(self, task: TaskRecord) -> str:
        """What `sluice explain` and the API say of a task."""
        return str(reasons(self.pool.store, self.pool.settings, [task], self.pool.now)[task.task_id])

    def sign_in(self) -> None:
        """The machine signs in, and offers enclaves of one kind."""
        if self.session is not None:
            return
        challenge = Challenge.model_validate_json(
            self.api.post("/workers/challenge", json={"wallet": self.machine.wallet}).raise_for_status().content
        )
        offer = Capabilities(name="sealed", version="1", slots=2, cpus=1, memory_bytes=2**30, tag=TDX)
        typed = SignIn.from_typed_data(challenge.typed_data).typed_data
        login = Login(
            wallet=self.machine.wallet,
            nonce=challenge.nonce,
            signature=self.machine.sign_typed_data(typed),
            capabilities=offer,
        )
        headers = {PROTOCOL_HEADER: str(PROTOCOL)}
        answer = self.api.post("/workers/login", json=login.model_dump(), headers=headers).raise_for_status()
        self.session = Session.model_validate_json(answer.content)

    def read_queue(self) -> None:
        """Take the assignments that have come, with the machine's own RabbitMQ user."""
        assert self.session is not None
        broker = self.session.broker
        with Connection(
            hostname=broker.host,
            port=broker.port,
            userid=broker.username,
            password=broker.password,
            virtual_host=broker.vhost,
        ) as connection:
            channel: Any = connection.channel()
            while (message := channel.basic_get(broker.compute_queue)) is not None:
                ((job, *_), _, _) = json.loads(message.body)
                found = Assignment.model_validate(job)
                self.given[TaskId(found.task_id)] = found
                channel.basic_ack(message.delivery_tag)

    def await_completed(self, deal: Matched) -> None:
        """Step until a deal of one task is done."""
        for _ in range(MOST_STEPS):
            if self.pool.view(deal).status is TaskStatus.COMPLETED:
                return
            self.step()
        raise AssertionError(self.pool.task(deal))

    def await_assignments(self) -> tuple[Assignment, Assignment]:
        """Start what is needed and step until the machine has both tasks."""
        if self.secrets.process is None:
            self.secrets.start()
        self.sign_in()
        for _ in range(MOST_STEPS):
            self.read_queue()
            if len(self.given) == 2:
                first, second = sorted(self.given.values(), key=lambda job: job.index)
                return first, second
            self.step()
        raise AssertionError([(self.says(task), task) for task in self.tasks()])

    def enclave(self, job: Assignment) -> tuple[Key, dict[str, dict[str, str]]]:
        """A session's key that signs results, and its services' environments."""
        permission, challenge = Signature(job.authorization), Wallet(job.enclave_challenge)
        services = fetch_session(self.secrets, self.machine, TaskId(job.task_id), challenge, permission)
        return Key.from_hex(services["post-compute"]["SIGN_TEE_CHALLENGE_PRIVATE_KEY"]), services

    def upload(self, job: Assignment, body: bytes, key: Key | None) -> httpx.Response:
        """Bring a result that `key` has signed; None: without a signature."""
        headers = self.bearer
        if key is not None:
            signature = sign_result(key, self.machine.wallet, TaskId(job.task_id), DIGEST)
            headers |= Attestation(DIGEST, signature).headers()
        return self.api.put(f"/tasks/{job.task_id}/result", content=body, headers=headers)


@pytest.fixture(scope="module")
def place(
    poco_state: PocoState, stack: Stack, ipfs: IpfsNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    home, sms_port = tmp_path_factory.mktemp("enclaves"), ports.free_port()
    url, broker = f"http://127.0.0.1:{sms_port}", read_settings(**given(stack.settings)).amqp_url.get_secret_value()
    more = {
        "enclave_sms_url": url,
        "ipfs_api": ipfs.api,
        "api_port": ports.free_port(),
        "amqp_public_port": urlsplit(broker).port,
    }
    with (
        _database(stack) as (database, _),
        open_outage_pool(poco_state, stack, database, home, **more) as pool,
        serving_machines(pool) as api,
    ):
        # The secret service goes by the real time, which a saved chain is behind.
        pool.now = max(pool.now, time.time())
        with serving(pool.chain, stack.settings["SLUICE_MONGODB_URI"], home, port=sms_port) as service:
            service.kill()
            # A machine without an enclave.
            pool.enrol(0)
            sealed = pool.buy(LONG, volume=2, tag=TDX, params=ENCRYPTED)
            yield Place(pool, service, api, sealed, pool.buy(LONG))


@contextmanager
def serving_machines(pool: OutagePool) -> Iterator[httpx.Client]:
    """The pool's API in a thread, and a client of it."""
    services = replace(Services.open(pool.settings), clock=pool.clock)
    services.broker.prepare()
    services.challenges.ensure_indexes()
    server = http_server(pool.settings, create_app(services), "127.0.0.1", pool.settings.api_port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 10.0, what="the API")
    with httpx.Client(base_url=f"http://127.0.0.1:{pool.settings.api_port}", timeout=ample(10.0)) as client:
        yield client
    server.should_exit = True
    thread.join()


def test_while_the_secret_service_is_away_tasks_for_enclaves_wait_and_all_others_go_on(place: Place) -> None:
    place.secrets.kill()
    # Its machine is then one that was right before, which comes first.
    place.await_completed(place.plain)
    place.sign_in()
    place.await_completed(place.pool.buy(LONG))
    for task in place.tasks():
        assert (task.stage, task.replicates, task.challenge) == (TaskStage.INITIALIZED, (), ZERO_ADDRESS)
        said = place.says(task)
        assert said.startswith(
            f"It waits for its enclave's challenge: The secret service at {place.secrets.url} gave no challenge"
        )
        assert said.endswith("The secret service is asked again.")


def test_each_task_is_given_out_with_the_challenge_that_the_service_tells_once_it_is_back(place: Place) -> None:
    jobs = place.await_assignments()
    config = PoolConfig.model_validate_json(place.api.get("/config").content)
    assert config.sms_url == place.secrets.url
    challenges = {job.enclave_challenge for job in jobs}
    assert len(challenges) == 2
    assert challenges == {task.challenge for task in place.tasks()}
    for job in jobs:
        signer = recover_authorization(
            Signature(job.authorization), place.machine.wallet, TaskId(job.task_id), Wallet(job.enclave_challenge)
        )
        assert (signer, job.tag, job.mode) == (config.scheduler, TDX, Mode.SOLO)


def test_a_result_is_taken_by_the_enclaves_signature_alone_and_its_beneficiary_can_read_it(
    place: Place, ipfs: IpfsNode
) -> None:
    job, other = place.await_assignments()
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    requester = place.pool.chain.sender(REQUESTER).key
    for owner, name, value in ((requester, RESULT_KEY_NAME, public), (place.machine, STORE_NAME, b"a token")):
        place.secrets.keep(owner, wallet_secret(owner.wallet, name), base64.b64encode(value))
    key, services = place.enclave(job)
    others_key, _ = place.enclave(other)
    body = io.BytesIO()
    beneficiary = read_public_key(services["post-compute"]["RESULT_ENCRYPTION_PUBLIC_KEY"])
    write_encrypted(body, [CONTENT], beneficiary, b"\x05" * 32, b"\x06" * 16)

    unsigned = place.upload(job, body.getvalue(), None)
    assert unsigned.status_code == 400
    assert "Enclave-Signature" in unsigned.json()["error"]
    for forger in (place.machine, others_key):
        forged_one = place.upload(job, body.getvalue(), forger)
        assert forged_one.status_code == 403
        assert f"not by {key.wallet}, the task's challenge" in forged_one.json()["error"]
    assert place.upload(job, in_clear(), key).status_code == 400

    answer = place.upload(job, body.getvalue(), key)
    assert answer.status_code == 200, answer.text
    stored = Stored.model_validate_json(answer.content)
    assert stored.digest == DIGEST
    finalize(place, job, stored, key)
    for _ in range(MOST_STEPS):
        if place.tasks()[0].stage is TaskStage.COMPLETED:
            break
        place.step()
    task = place.tasks()[0]
    assert (task.stage, task.results) == (TaskStage.COMPLETED, stored.link.model_dump_json())
    fetched = httpx.get(f"{ipfs.gateway}{stored.link.location}", timeout=ample(10.0)).raise_for_status()
    with zipfile.ZipFile(io.BytesIO(fetched.content)) as archive:
        opened = private.decrypt(archive.read(KEY_FILE), PKCS1v15())
        assert b"".join(decrypted([archive.read(CONTENT_FILE)], opened)) == CONTENT


def test_a_task_whose_challenge_the_service_lost_is_given_out_anew_with_another_and_completed(
    place: Place, stack: Stack
) -> None:
    _, lost = place.await_assignments()
    task = TaskId(lost.task_id)
    with MongoClient[dict[str, Any]](stack.settings["SLUICE_MONGODB_URI"]) as client:
        rows = client[place.secrets.environment["SLUICE_SMS_DATABASE"]]["secrets"]
        assert rows.delete_one({"_id": challenge_place(task)}).deleted_count == 1
    request = session_request(task, place.machine, Wallet(lost.enclave_challenge), Signature(lost.authorization))
    refused = place.secrets.post("/tee/sessions", request.pop("signed"), json=request)
    assert refused.status_code == 401
    # As a worker reports it.
    cause = f"{NO_SESSION}{refused.json()['error']}"
    assert cause == LOST_CHALLENGE
    report = Report(step=Step.FAILED, cause=f"{cause}: the secret service says so")
    place.api.post(
        f"/tasks/{task}/reports", json=report.model_dump(mode="json"), headers=place.bearer
    ).raise_for_status()

    del place.given[task]
    job = place.await_assignments()[1]
    assert job.task_id == task
    assert job.enclave_challenge not in {lost.enclave_challenge, ZERO_ADDRESS}
    key, _ = place.enclave(job)
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    body = io.BytesIO()
    write_encrypted(body, [CONTENT], public, b"\x05" * 32, b"\x06" * 16)
    answer = place.upload(job, body.getvalue(), key)
    assert answer.status_code == 200, answer.text
    finalize(place, job, Stored.model_validate_json(answer.content), key)
    for _ in range(MOST_STEPS):
        if place.tasks()[1].stage is TaskStage.COMPLETED:
            break
        place.step()
    assert place.tasks()[1].stage is TaskStage.COMPLETED


def in_clear() -> bytes:
    """The zip of a result that is not encrypted."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("computed.json", json.dumps({"deterministic-output-path": "/iexec_out/result.txt"}))
        archive.writestr("result.txt", CONTENT)
    return body.getvalue()


def finalize(place: Place, job: Assignment, stored: Stored, key: Key) -> None:
    """The machine's only transaction, through the contract that checks the enclave's signature again."""
    task, wallet = TaskId(job.task_id), place.machine.wallet
    data = calls.contribute_and_finalize(
        task,
        DIGEST,
        to_hex(stored.link.model_dump_json().encode()),
        Signature(job.authorization),
        enclave_challenge=Contract(job.enclave_challenge),
        enclave_signature=sign_result(key, wallet, task, DIGEST),
    )
    place.pool.now += 1
    place.pool.chain.rpc.call("evm_setNextBlockTimestamp", int(place.pool.now))
    request = TxRequest(place.pool.chain.at.hub, data, calls.gas_limit("contributeAndFinalize", data))
    place.pool.chain.sender(WORKERS[place.number]).run([request])
