"""Statuses and bodies as the SDK and iExec's worker read them; what is done is `test_service`'s."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from config.http_server.rates import RateLimits, parsed
from config.values.sms_settings import read_sms_settings
from protocol.enclave.secrets import STORE_URL_NAME, dataset_key, requester_secret
from protocol.enclave.session import fetching_hash
from protocol.errors import BadSetting
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.enclave import challenge_request
from protocol.types import TaskId
from sms.api.application import create_app
from sms.challenges import challenge_place
from sms.properties import read_properties
from sms.store.port import Row
from tests.unit.sms.world import (
    DATASET,
    NOW,
    OWNER,
    POOL,
    REQUESTER,
    RESULT_KEY,
    STRANGER,
    TASK,
    WORKER,
    World,
    ask,
    execution,
    sign_secret,
    with_deal,
    with_place,
)

Call = Callable[..., httpx.Response]
#: What the stock SDKs sent to store one secret of each kind, and to change one (tests/sdk/record_secrets.mjs).
RECORDED = json.loads((Path(__file__).parents[2] / "data" / "sms-requests.json").read_text(encoding="utf-8"))
#: What iExec's scheduler and workers send for one task, and the status that they expect; the file says where from.
IEXECS = json.loads((Path(__file__).parents[2] / "data" / "sms-iexec-requests.json").read_text(encoding="utf-8"))
RESULT_KEY_PATH = f"/secrets/web2?ownerAddress={REQUESTER.wallet}&secretName={RESULT_KEY.name}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.of(tmp_path)


@pytest.fixture
def call(world: World) -> Call:
    return calling(create_app(world.service, world.rates))


def calling(app: FastAPI) -> Call:
    return lambda *args, **more: asyncio.run(_served(app, *args, **more))


async def _served(app: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sms") as client:
        return await client.request(method, path, **more)


@pytest.mark.parametrize("sdk", sorted(RECORDED["requests"]))
def test_what_a_stock_sdk_sends_is_stored_as_it_was_meant(call: Call, world: World, sdk: str) -> None:
    owner = RECORDED["wallet"].lower()
    world.chain.owners |= {RECORDED[kind].lower(): owner for kind in ("dataset", "app")}
    requests = RECORDED["requests"][sdk]
    answers = [
        call(one["method"], one["path"], headers=one["headers"], content=(one["body"] or "").encode())
        for one in requests
    ]
    assert [(one["method"], answer.status_code) for one, answer in zip(requests, answers, strict=True)] == [
        ("HEAD", 404),
        ("HEAD", 404),
        ("POST", 204),
        ("POST", 204),
        ("HEAD", 404),
        ("POST", 204),
        ("HEAD", 404),
        ("POST", 204),
        ("HEAD", 204),
        ("PUT", 204),
    ]
    values = {place: world.service.vault.open(row.sealed, place).decode() for place, row in world.store.rows.items()}
    assert values == {
        f"web3:{RECORDED['dataset'].lower()}:": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        f"apps:{RECORDED['app'].lower()}:1": "the developer\u2019s",
        f"requesters:{owner}:my-secret_1": "the requester\u2019s",
        f"web2:{owner}:{RESULT_KEY.name}": "TUlJQg==2",
    }


@pytest.fixture
def recorded(world: World) -> World:
    """The world with the recorded task, whose challenge is the recorded one."""
    task, challenge = TaskId(IEXECS["task"]), IEXECS["challenge"].lower()
    found = with_deal(execution(), deal_id=IEXECS["deal"], workerpool_owner=IEXECS["scheduler"].lower())
    found = replace(found, task_id=task, dataset=None, deal=replace(found.deal, dataset=None))
    world.chain.executions[task] = with_place(found, index=0)
    place = challenge_place(task)
    world.store.add(Row(place, world.service.vault.seal(b"\x33" * 32, place), challenge, NOW + 3600))
    return world


def sent(call: Call, who: str) -> list[httpx.Response]:
    """What the service answers to one of them, in the order in which it asks."""
    return [
        call(one["method"], one["path"], headers=one["headers"], content=(one["body"] or "").encode())
        for one in IEXECS["requests"][who]
    ]


def test_iexecs_scheduler_is_told_the_challenge_as_it_asks_for_it(call: Call, recorded: World) -> None:
    answers = sent(call, "scheduler")
    assert [answer.status_code for answer in answers] == [one["status"] for one in IEXECS["requests"]["scheduler"]]
    framework, challenge = answers[:2]
    assert framework.json() == "TDX"
    assert challenge.text == IEXECS["challenge"].lower()
    assert recorded.store.has(f"web2:{IEXECS['scheduler'].lower()}:{STORE_URL_NAME}")


def test_iexecs_worker_gets_a_session_as_it_asks_for_it(call: Call, recorded: World) -> None:
    sent(call, "scheduler")
    answers = sent(call, "worker")
    assert [answer.status_code for answer in answers] == [one["status"] for one in IEXECS["requests"]["worker"]]
    properties, session = answers[0].json(), answers[-1].json()
    assert (properties["teeFramework"], properties["teeFrameworkVersion"]) == ("TDX", "v0")
    assert session["error"] is None
    opened = recorded.store.session(session["data"]["sessionId"])
    assert opened is not None
    assert (opened.task_id, opened.wallet) == (IEXECS["task"], IEXECS["worker"].lower())
    made = recorded.service._session(opened).services
    post_compute = made[-1].environment
    assert (post_compute["RESULT_STORAGE_TOKEN"], post_compute["RESULT_STORAGE_PROXY"]) == (
        "tok2",
        "https://result.example",
    )
    assert Key.from_hex(post_compute["SIGN_TEE_CHALLENGE_PRIVATE_KEY"]).wallet == IEXECS["challenge"].lower()


@pytest.mark.parametrize("changed", ["chainTaskId", "workerWallet", "enclaveChallenge"])
def test_no_session_is_given_for_a_recorded_request_of_which_a_part_is_another(
    call: Call, recorded: World, changed: str
) -> None:
    sent(call, "scheduler")
    *_, asked = IEXECS["requests"]["worker"]
    body = json.loads(asked["body"])
    other = {"chainTaskId": TASK, "workerWallet": STRANGER.wallet, "enclaveChallenge": STRANGER.wallet}[changed]
    answer = call("POST", asked["path"], headers=asked["headers"], json=body | {changed: other})
    assert (answer.status_code, answer.json()["data"]) == (401, None)
    assert not recorded.store.sessions


def test_a_secrets_life_in_statuses(call: Call) -> None:
    old, new = ({"authorization": sign_secret(REQUESTER, RESULT_KEY, value)} for value in (b"old", b"new"))
    statuses = [
        call("HEAD", RESULT_KEY_PATH),
        call("PUT", RESULT_KEY_PATH, content=b"new", headers=new),
        call("POST", RESULT_KEY_PATH, content=b"old", headers=new),
        call("POST", RESULT_KEY_PATH, content=b"old", headers=old),
        call("POST", RESULT_KEY_PATH, content=b"new", headers=new),
        call("HEAD", RESULT_KEY_PATH),
        call("PUT", RESULT_KEY_PATH, content=b"new", headers=new),
    ]
    assert [answer.status_code for answer in statuses] == [404, 404, 401, 204, 409, 204, 204]


@pytest.mark.parametrize(
    ("path", "value", "status"),
    [
        (f"/requesters/{REQUESTER.wallet}/secrets/a.b", b"v", 400),
        (f"/requesters/{REQUESTER.wallet}/secrets/{'a' * 65}", b"v", 400),
        ("/requesters/0x12/secrets/a", b"v", 400),
        ("/apps/0x12/secrets", b"v", 400),
        ("/secrets/web3", b"v", 400),
        (f"/requesters/{REQUESTER.wallet}/secrets/a", b"v" * 4097, 413),
        (f"/requesters/{REQUESTER.wallet}/secrets/a", b"", 400),
        (f"/secrets/web3?secretAddress=0x{'12' * 20}", b"v", 503),
    ],
)
def test_what_is_wrong_with_a_secret_is_told_by_a_status_and_never_by_its_value(
    call: Call, path: str, value: bytes, status: int
) -> None:
    signature = sign_secret(REQUESTER, requester_secret(REQUESTER.wallet, "a"), value)
    answer = call("POST", path, content=value, headers={"authorization": signature})
    assert answer.status_code == status
    assert answer.json()["error"]
    assert signature not in answer.text


def test_a_request_without_a_signature_is_not_of_its_form(call: Call) -> None:
    assert call("POST", RESULT_KEY_PATH, content=b"v").status_code == 400


def test_the_challenge_is_an_address_as_plain_text(call: Call, world: World) -> None:
    signature = POOL.sign_message(to_bytes(challenge_request(TASK)))
    answer = call("POST", f"/tee/challenges/{TASK}", headers={"authorization": signature})
    assert (answer.status_code, answer.text) == (200, world.challenge())
    refused = call("POST", f"/tee/challenges/{TASK}", headers={"authorization": "0x" + "00" * 65})
    assert refused.status_code == 401
    assert call("POST", "/tee/challenges/0x12", headers={"authorization": signature}).status_code == 400
    unknown = call("POST", f"/tee/challenges/0x{'12' * 32}", headers={"authorization": signature})
    assert (unknown.status_code, unknown.headers["retry-after"]) == (503, "2")


def test_a_session_is_asked_for_in_iexecs_form_and_fetched_once(call: Call, world: World) -> None:
    request, signature = world.prepare()
    world.keep(OWNER, dataset_key(DATASET), b"key")
    body = {
        "chainTaskId": TASK,
        "dealId": "0x" + "de" * 32,
        "taskIndex": 3,
        "workerWallet": WORKER.wallet.upper().replace("X", "x"),
        "enclaveChallenge": request.enclave_challenge,
        "signature": {"value": request.authorization},
    }
    answer = call("POST", "/tee/sessions", json=body, headers={"authorization": signature})
    place = answer.json()["data"]
    assert (answer.status_code, answer.json()["error"]) == (200, None)
    assert place["secretProvisioningUrl"] == "http://sms/tee/simulated"
    assert place["sessionId"][10:] == "0000" + TASK
    header = {"authorization": WORKER.sign_message(to_bytes(fetching_hash(place["sessionId"])))}
    found = call("GET", f"/tee/simulated/{place['sessionId']}", headers=header)
    assert [service["name"] for service in found.json()["services"]] == ["pre-compute", "app", "post-compute"]
    assert call("GET", f"/tee/simulated/{place['sessionId']}", headers=header).status_code == 404


def test_why_there_is_no_session_is_one_of_iexecs_words(call: Call, world: World) -> None:
    request, signature = world.prepare()
    body = request.model_dump_json(by_alias=True)
    missing = call("POST", "/tee/sessions", content=body, headers={"authorization": signature})
    assert (missing.status_code, missing.json()) == (
        500,
        {"data": None, "error": "PRE_COMPUTE_GET_DATASET_SECRET_FAILED"},
    )
    forged, signature = ask(world.challenge(), pool=STRANGER)
    body = forged.model_dump_json(by_alias=True)
    refused = call("POST", "/tee/sessions", content=body, headers={"authorization": signature})
    assert (refused.status_code, refused.json()["error"]) == (401, "EXECUTION_NOT_AUTHORIZED_INVALID_SIGNATURE")
    assert call("POST", "/tee/sessions", content=b"{}", headers={"authorization": signature}).status_code == 400


def test_the_framework_and_its_images_are_told_in_iexecs_names(call: Call) -> None:
    assert (call("GET", "/tee/framework").json(), call("GET", "/health").json()) == ("TDX", {"status": "UP"})
    found = call("GET", "/tee/properties/TDX/v0").json()
    assert found["teeFramework"] == "TDX"
    assert set(found["preComputeProperties"]) == {"image", "fingerprint", "entrypoint", "heapSizeInBytes"}
    assert call("GET", "/tee/properties/tdx").json() == found
    assert call("GET", "/tee/properties/SCONE/v0").status_code == 409
    assert call("GET", "/tee/properties/TDX/v9").status_code == 404


def test_too_many_secrets_from_one_address_are_answered_with_429(world: World) -> None:
    rates = RateLimits(
        {"requests": parsed("A", "1000/minute"), "secrets": parsed("B", "1/minute"), "tasks": parsed("C", "9/minute")}
    )
    path = f"/requesters/{REQUESTER.wallet}/secrets/a"
    signature = sign_secret(REQUESTER, requester_secret(REQUESTER.wallet, "a"), b"v")
    call = calling(create_app(world.service, rates))
    answers = [call("POST", path, content=b"v", headers={"authorization": signature}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [204, 429]
    assert call("HEAD", path).status_code == 204


def test_a_client_that_goes_before_its_body_is_whole_is_no_error_of_ours(world: World) -> None:
    pieces: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]
    query, headers = f"secretAddress={DATASET}".encode(), [(b"authorization", b"0x")]
    scope = {"type": "http", "method": "POST", "path": "/secrets/web3", "query_string": query, "headers": headers}

    async def receive() -> dict[str, Any]:
        return pieces.pop(0)

    async def send(_: Any) -> None:
        return

    # It would be raised here, and uvicorn would log it with its traceback.
    asyncio.run(create_app(world.service, world.rates)(scope, receive, send))
    assert not pieces
    assert not world.store.rows


def test_images_are_read_from_a_file_by_version(tmp_path: Path) -> None:
    compute = {"image": "registry.example/pre:1", "fingerprint": "0xff"}
    row = {"preComputeProperties": compute, "postComputeProperties": compute}
    path = tmp_path / "images.json"
    path.write_text(json.dumps({"v2": row, "v1": row}))
    found = read_properties(read_sms_settings(properties_file=path))
    assert list(found) == ["v2", "v1"]
    assert found["v1"].pre_compute_properties.image == "registry.example/pre:1"
    for content in ("", "[]", "{}", '{"v1": 3}', '{"v1": {"preComputeProperties": {}}}'):
        path.write_text(content)
        with pytest.raises(BadSetting, match="PROPERTIES_FILE"):
            read_properties(read_sms_settings(properties_file=path))
