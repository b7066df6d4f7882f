"""Stock SDKs 8 and 9 push secrets to a secret service, which is a process of its own on a real chain and MongoDB; SDK 9
then has a confidential task done. The pool's and the worker's sides are played by hand here, so that a failure means
the service, the contracts or the encryption.
"""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from chain.contracts import calls
from chain.rpc.client import Rpc
from ops.market import contracts, orders
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.sender import TxRequest
from ops.poco.state import PocoState
from ops.stack import ports
from ops.stack.servers import anvil
from ops.stack.stack import Stack
from protocol.enclave.cipher import decrypted, read_key
from protocol.enclave.result import read_public_key, write_encrypted
from protocol.enclave.secrets import STORE_NAME, storing_hash, wallet_secret
from protocol.enclave.session import fetching_hash
from protocol.errors import TransactionReverted
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.authorization import authorization_hash, sign_authorization
from protocol.poco.enclave import challenge_request, sign_result
from protocol.poco.ids import task_id
from protocol.results.digest import file_digest
from protocol.types import Contract, DealId, Hash32, Signature, TaskId, Wallet
from tests.integration import sdk
from tests.integration.conftest import BLOCK_TIME, Chain, IpfsNode
from tests.integration.sms.service import Sms, serving
from tests.integration.test_sdk_requester import await_deal, put
from tests.waiting import ample

#: Seconds for everything the SDK does: it looks at a task every 5 s.
WAIT_SECONDS = 90.0
TDX_TAG = Hash32("0x" + "0" * 63 + "9")
DATASET = "the rows that nobody but the enclave may read"
APP_SECRET, REQUESTER_SECRET = "what the developer knows", "what the requester knows"
TOKEN = b"the-workers-token-at-the-result-store"
DIGEST = file_digest(b"\x07" * 32)


@pytest.fixture(scope="module")
def own_chain(poco_state: PocoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    node = anvil.start(tmp_path_factory.mktemp("chain"), ports.free_port(), block_time=BLOCK_TIME, load=poco_state.path)
    with Rpc(node.rpc_url, timeout=ample(3.0)) as rpc:
        yield Chain(node, rpc, poco_state.addresses)
    node.stop()


@pytest.fixture(scope="module")
def sms(own_chain: Chain, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sms]:
    with serving(own_chain, stack.settings["SLUICE_MONGODB_URI"], tmp_path_factory.mktemp("sms")) as service:
        yield service


def start_sdk(version: str, chain: Chain, sms: Sms, folder: Path, **more: Any) -> subprocess.Popen[str]:
    world = folder / "world.json"
    given = {
        "sdk": version,
        "rpc": chain.node.rpc_url,
        "hub": chain.at.hub,
        "sms": sms.url,
        "folder": str(folder),
        "dataset": DATASET,
        "app_secret": APP_SECRET,
        "requester_secret": REQUESTER_SECRET,
    }
    world.write_text(json.dumps(given | more))
    command = [sdk.node(), sdk.folder() / "secrets.mjs", world]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check(report: dict[str, Any], folder: Path) -> None:
    """What both SDKs must have seen."""
    assert report["exists"] == [True, True, True, True, False]
    assert report["updated"] == [False, False, True]
    assert "is not allowed to set secret" in report["refused"].pop("stranger")
    assert "unexpected status: 413" in report["refused"].pop("large")
    assert all("already exists" in said for said in report["refused"].values()), report["refused"]
    file = (folder / "dataset.aes").read_bytes()
    assert b"".join(decrypted([file], read_key(report["key"]))).decode() == DATASET


def no_trace(sms: Sms, stack: Stack, *values: str) -> None:
    """None of the values is in the service's database, its files or what it has logged."""
    with MongoClient[dict[str, Any]](stack.settings["SLUICE_MONGODB_URI"]) as client:
        db = client[sms.environment["SLUICE_SMS_DATABASE"]]
        stored = b"".join(repr(row).encode() for name in db.list_collection_names() for row in db[name].find())
    files = b"".join(path.read_bytes() for path in sms.log.parent.rglob("*") if path.is_file())
    assert b"secret_stored" in files
    for value in values:
        for place in (stored, files):
            assert value.encode() not in place


def test_sdk_8_stores_every_kind_of_secret_and_understands_each_refusal(
    own_chain: Chain, sms: Sms, stack: Stack, tmp_path: Path
) -> None:
    with start_sdk("8", own_chain, sms, tmp_path) as owner:
        printed, complaints = owner.communicate(timeout=ample(WAIT_SECONDS))
    assert owner.returncode == 0, complaints
    report = json.loads(printed)
    check(report, tmp_path)
    no_trace(sms, stack, report["key"], APP_SECRET, REQUESTER_SECRET)


def test_sdk_9_has_a_confidential_task_done_whose_result_its_beneficiary_alone_can_read(
    own_chain: Chain, sms: Sms, stack: Stack, ipfs: IpfsNode, tmp_path: Path
) -> None:
    pool = own_chain.sender(1)
    (workerpool,) = contracts.create(pool, own_chain.at, [contracts.NewWorkerpool("enclaves")])
    offer = orders.offer_work(own_chain.market, pool.key, workerpool, category=TEST_10_CATEGORY, tag=TDX_TAG, trust=1)
    given = {"ipfs_gateway": ipfs.gateway, "workerpool": offer.to_json()}
    with start_sdk("9", own_chain, sms, tmp_path, **given) as requester:
        try:
            deal = await_deal(own_chain)
            # Whatever the service held in memory is gone; what was stored is there.
            sms.kill()
            sms.start()
            found = serve(own_chain, sms, deal, ipfs, tmp_path / "dataset.aes")
            printed, complaints = requester.communicate(timeout=ample(WAIT_SECONDS))
        finally:
            requester.kill()
    assert requester.returncode == 0, complaints
    report = json.loads(printed)
    check(report, tmp_path)
    assert found == [report["key"], APP_SECRET, REQUESTER_SECRET]
    assert report["files"] == {"answer.txt": f"{DATASET} + {APP_SECRET} + {REQUESTER_SECRET}"}
    assert own_chain.hub.tasks([task_id(deal, 0)])[0].status.name == "COMPLETED"
    no_trace(sms, stack, report["key"], APP_SECRET, REQUESTER_SECRET, TOKEN.decode())


def serve(chain: Chain, sms: Sms, deal: DealId, ipfs: IpfsNode, dataset: Path) -> list[str]:
    """Run the deal's only task as scheduler, worker and enclaves in one; returns the secrets that it was given."""
    pool, worker, task = chain.sender(1), chain.sender(2), task_id(deal, 0)
    begin = calls.initialize_array([(deal, 0)])
    pool.run([TxRequest(chain.at.hub, begin, calls.gas_limit("initializeArray", begin))])

    ask = pool.key.sign_message(to_bytes(challenge_request(task)))
    challenge = Wallet(sms.post(f"/tee/challenges/{task}", ask).raise_for_status().text.lower())
    assert sms.post(f"/tee/challenges/{task}", worker.key.sign_message(b"x" * 32)).status_code == 401

    secret = wallet_secret(worker.wallet, STORE_NAME)
    path = f"/secrets/web2?ownerAddress={worker.wallet}&secretName={STORE_NAME}"
    sms.post(path, worker.key.sign_message(to_bytes(storing_hash(secret, TOKEN))), content=TOKEN).raise_for_status()
    permission = sign_authorization(pool.key, worker.wallet, task, challenge)
    services = fetch_session(sms, worker.key, task, challenge, permission)
    pre, app, post = (services[name] for name in ("pre-compute", "app", "post-compute"))

    rows = b"".join(decrypted([dataset.read_bytes()], read_key(pre["IEXEC_DATASET_KEY"]))).decode()
    secrets = [app["IEXEC_APP_DEVELOPER_SECRET"], app["IEXEC_REQUESTER_SECRET_1"]]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("answer.txt", " + ".join([rows, *secrets]))
    stored = io.BytesIO()
    public = read_public_key(post["RESULT_ENCRYPTION_PUBLIC_KEY"])
    write_encrypted(stored, [content.getvalue()], public, b"\x05" * 32, b"\x06" * 16)
    assert post["RESULT_STORAGE_TOKEN"] == TOKEN.decode()
    link = put(ipfs.api, stored.getvalue())

    enclave = Key.from_hex(post["SIGN_TEE_CHALLENGE_PRIVATE_KEY"])
    assert enclave.wallet == challenge
    vote(chain, task, link, permission, challenge, enclave)
    # A task that is over has no more sessions, whatever was signed for it.
    request = session_request(task, worker.key, challenge, permission)
    over = sms.post("/tee/sessions", request.pop("signed"), json=request)
    assert (over.status_code, over.json()["error"]) == (401, "EXECUTION_NOT_AUTHORIZED_TASK_NOT_ACTIVE")
    return [pre["IEXEC_DATASET_KEY"], *secrets]


def vote(chain: Chain, task: TaskId, link: str, permission: Signature, challenge: Wallet, enclave: Key) -> None:
    """Contribute and finalize; with another key's signature in place of the enclave's, the contract refuses."""
    worker = chain.sender(2)
    for key in (worker.key, enclave):
        signature = sign_result(key, worker.wallet, task, DIGEST)
        data = calls.contribute_and_finalize(
            task, DIGEST, link, permission, enclave_challenge=Contract(challenge), enclave_signature=signature
        )
        request = TxRequest(chain.at.hub, data, calls.gas_limit("contributeAndFinalize", data))
        if key is enclave:
            worker.run([request])
        else:
            with pytest.raises(TransactionReverted):
                worker.run([request])


def session_request(task: TaskId, worker: Key, challenge: Wallet, permission: Signature) -> dict[str, Any]:
    """The body of a request for a session, as iExec's worker writes it, and its signature."""
    return {
        "chainTaskId": task,
        "dealId": "0x" + "00" * 32,
        "taskIndex": 0,
        "workerWallet": worker.wallet,
        "enclaveChallenge": challenge,
        "signature": {"value": permission},
        "signed": worker.sign_message(to_bytes(authorization_hash(worker.wallet, task, challenge))),
    }


def fetch_session(
    sms: Sms, worker: Key, task: TaskId, challenge: Wallet, permission: Signature
) -> dict[str, dict[str, str]]:
    """Each service's environment. The session is fetched once: again it is refused."""
    request = session_request(task, worker, challenge, permission)
    made = sms.post("/tee/sessions", request.pop("signed"), json=request).raise_for_status().json()["data"]
    address = f"{made['secretProvisioningUrl']}/{made['sessionId']}"
    headers = {"authorization": worker.sign_message(to_bytes(fetching_hash(made["sessionId"])))}
    found = httpx.get(address, headers=headers, timeout=ample(10.0)).raise_for_status().json()
    assert httpx.get(address, headers=headers, timeout=ample(10.0)).status_code == 404
    return {service["name"]: service["environment"] for service in found["services"]}
