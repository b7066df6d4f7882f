"""What a stranger may send to the public API, on a real served one: each answer is a 4xx, nothing is let in, and an
honest machine is served all the while.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI, Response
from hypothesis import HealthCheck, Phase, given, settings

from config.http_server.rates import RateLimits
from config.settings import read_settings
from pipeline.api.application import create_app
from pipeline.api.auth.tokens import AUDIENCE
from pipeline.api.limits.body_limit import REPORT_BYTES, SMALL_BYTES, BodyLimit
from pipeline.api.limits.rate_limits import AddressLimit
from pipeline.domain.records import TaskRecord
from tests.integration.api.conftest import STRANGER, TASK, WORKER, Api
from tests.integration.api.small_server import ends, small_server
from tests.waiting import ample, wait_until

DEEP = b'{"a":' * 50_000
LONG = "0x" + "ab" * 100_000
WRONG: list[Any] = [None, 7, 2**70, -(2**70), 1e308, True, "", "0x", LONG, [], {}, [[]], {"a": {}}, "\ud800", "\0"]


def refused(response: httpx.Response) -> None:
    """An answer that lets nothing in, in the API's own form."""
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:200])
    assert response.json()["error"]


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"7", b'"x"', b"{", b"\xff\xfe", b"{}" * 9, DEEP[:100_000], b"[" * 100_000, b"nan"],
    ids=lambda body: f"{body[:8]!r}x{len(body)}",
)
@pytest.mark.parametrize("path", ["/workers/challenge", "/workers/login"])
def test_a_body_that_is_not_the_message_is_refused(api: Api, path: str, body: bytes) -> None:
    refused(api.http.post(path, content=body, headers={"content-type": "application/json"}))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: repr(value)[:20])
def test_a_wrong_value_in_any_field_of_a_message_is_refused(api: Api, wrong: Any) -> None:
    header = api.bearer(WORKER)
    offer = {"name": "m", "version": "1", "slots": 1, "cpus": 1, "memory_bytes": 1, "tag": "0x" + "00" * 32}
    login = {"wallet": WORKER.wallet, "nonce": "0x" + "00" * 32, "signature": "0x" + "00" * 65, "capabilities": offer}
    messages: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        ("/workers/challenge", {"wallet": WORKER.wallet}, {}),
        ("/workers/login", login, {}),
        ("/workers/ping", {"tasks": []}, header),
        (f"/tasks/{TASK}/reports", {"step": "started", "exit_code": 0, "seconds": 1.0}, header),
    ]
    for path, good, headers in messages:
        for name in good:
            # Into JSON by hand: a lone surrogate has no UTF-8.
            body = json.dumps(good | {name: wrong}).encode()
            answer = api.http.post(path, content=body, headers={**headers, "content-type": "application/json"})
            assert answer.status_code < 500, (path, name, answer.text[:200])
    for name in offer:
        answer = api.http.post("/workers/login", content=json.dumps(login | {"capabilities": offer | {name: wrong}}))
        refused(answer)


@pytest.mark.parametrize(("path", "most"), [("/workers/login", SMALL_BYTES), ("/workers/ping", SMALL_BYTES)])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused_before_it_is_parsed(
    api: Api, path: str, most: int, declared: bool
) -> None:
    content: Any = b" " * (most + 1) if declared else (b" " * 1000 for _ in range(most // 1000 + 2))
    header = api.bearer(WORKER)
    assert api.http.post(path, content=content, headers=header).status_code == 413


def test_a_report_that_is_too_large_is_refused(api: Api) -> None:
    header = api.bearer(WORKER)
    answer = api.http.post(f"/tasks/{TASK}/reports", content=b" " * (REPORT_BYTES + 1), headers=header)
    assert answer.status_code == 413


# -- who asks ----------------------------------------------------------------------------------------------------------


def test_forged_tokens_are_refused(api: Api) -> None:
    good = api.sign_in(WORKER).token
    head, body, signature = good.split(".")
    claims = {"sub": WORKER.wallet, "aud": AUDIENCE, "iat": time.time(), "exp": time.time() + 999}

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    other = part(claims | {"sub": STRANGER.wallet})
    key_id = api.services.keys.newest.id
    forged = [
        jwt.encode(claims, "", algorithm="none"),
        f"{part({'alg': 'none'})}.{body}.",
        f"{part({'alg': 'NONE', 'kid': key_id})}.{body}.{signature}",
        f"{head}.{other}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{signature[:-2]}",
        jwt.encode(claims, "x" * 32, algorithm="HS256", headers={"kid": key_id}),
        jwt.encode(claims, api.services.keys.newest.challenge, algorithm="HS256", headers={"kid": key_id}),
        jwt.encode(claims, api.services.keys.newest.token * 2, algorithm="HS512", headers={"kid": key_id}),
        "a" * 5000,
    ]
    for token in forged:
        answer = api.http.post("/workers/ping", json={"tasks": []}, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401, token


def test_another_wallets_token_reaches_nothing_of_this_one(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    stranger = api.bearer(STRANGER)
    assert api.http.post(f"/tasks/{TASK}/reports", json={"step": "started"}, headers=stranger).status_code == 403
    assert api.http.put(f"/tasks/{TASK}/result", content=b"x", headers=stranger).status_code == 403
    assert api.http.get(f"/tasks/{TASK}/logs", headers=stranger).status_code == 401


@pytest.mark.parametrize("header", ["x-http-method-override", "x-http-method", "x-original-url", "x-rewrite-url"])
def test_no_header_changes_what_is_asked(api: Api, header: str) -> None:
    answer = api.http.get("/live", headers={header: "DELETE" if "method" in header else "/metrics"})
    assert (answer.status_code, answer.json()) == (200, {"ok": True})


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "FOO"])
def test_a_method_that_a_route_does_not_have_is_refused(api: Api, method: str) -> None:
    assert api.http.request(method, "/workers/login").status_code in {400, 404, 405}


@pytest.mark.parametrize(
    "path",
    [
        "/tasks/..%2f..%2fmetrics",
        "//metrics",
        "/./metrics",
        "/tasks/0x00",
        f"/tasks/{TASK}%00",
        "/workers/0xZZ",
        "/%ff",
    ],
)
def test_an_odd_path_leads_nowhere(api: Api, path: str) -> None:
    refused(api.http.get(path))


# -- slow and many -----------------------------------------------------------------------------------------------------


def test_slow_heads_and_slow_bodies_are_closed_and_others_are_served() -> None:
    app = FastAPI()

    @app.post("/echo")
    def echo(value: dict[str, int]) -> dict[str, int]:
        return value

    app.add_middleware(BodyLimit, result_bytes=10, body_seconds=0.3)
    with small_server(app) as port:
        address = ("127.0.0.1", port)
        begun = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        with (
            closing(socket.create_connection(address)) as silent,
            closing(socket.create_connection(address)) as head,
            closing(socket.create_connection(address)) as body,
            closing(socket.create_connection(address)) as second,
        ):
            head.sendall(begun)
            body.sendall(begun + b"content-length: 9\r\n\r\n{")
            # A good request, and then the beginning of another on the same connection.
            second.sendall(begun + b"content-length: 7\r\n\r\n" + b'{"a":1}' + begun)
            assert httpx.post(f"http://127.0.0.1:{port}/echo", json={"a": 1}, timeout=ample(5)).json() == {"a": 1}
            assert ends(silent) == ends(head) == b""
            assert b" 408 " in ends(body)
            answers = ends(second)
            assert (answers.count(b"HTTP/1.1"), b'{"a":1}' in answers) == (1, True)


@pytest.mark.parametrize("times", [1, 200], ids=["one long answer", "many answers"])
def test_a_client_that_reads_nothing_loses_its_place_and_one_that_reads_gets_all(times: int) -> None:
    app = FastAPI()
    # More than the system's buffers on both sides hold.
    whole = b"x" * (16 * 2**20 // times)

    @app.get("/long")
    def long() -> Response:
        return Response(whole)

    with small_server(app, head=60.0, connections=1, read=0.5) as port, closing(socket.socket()) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", port))
        silent.sendall(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n" * times)
        assert silent.recv(1)

        def read() -> bool:
            with suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/long", timeout=ample(5)).content == whole
            return False

        wait_until(read, 10.0, what="a place for another")


def test_more_connections_from_one_address_than_allowed_are_closed_and_places_are_given_back() -> None:
    app = FastAPI()

    @app.get("/live")
    def live() -> dict[str, bool]:
        return {"ok": True}

    with small_server(app, head=600.0, connections=3) as port:
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        with closing(socket.create_connection(("127.0.0.1", port))) as fourth:
            assert ends(fourth) == b""
        for connection in held:
            connection.close()

        def served() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/live", timeout=ample(5)).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(served, 10.0, what="a place")


def test_a_flood_from_one_address_is_answered_with_429_and_others_are_served() -> None:
    app = FastAPI()

    @app.post("/workers/challenge")
    def challenge() -> dict[str, bool]:
        return {"ok": True}

    app.add_middleware(AddressLimit, rates=RateLimits.of(read_settings(rate_sign_in="5/minute")))
    with (
        small_server(app, head=60.0) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ample(5.0)) as http,
    ):
        flood = {"x-forwarded-for": "203.0.113.5"}
        answers = [http.post("/workers/challenge", headers=flood) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 61
        refused(answers[-1])
        assert http.post("/workers/challenge", headers={"x-forwarded-for": "203.0.113.6"}).status_code == 200


def test_sign_ins_of_one_wallet_are_limited_and_nobody_else_can_use_up_its_share(api: Api) -> None:
    rates = RateLimits.of(read_settings(rate_sign_in_wallet="2/minute"))
    application, before = api.application, api.services
    application.state.services = replace(before, rates=rates)
    try:
        for _ in range(4):
            # Signed by another key: counted for nobody.
            assert api.answer(STRANGER, api.challenge(WORKER.wallet), wallet=WORKER.wallet).status_code == 401
        assert [api.answer(WORKER, api.challenge(WORKER.wallet)).status_code for _ in range(3)] == [200, 200, 429]
        assert api.answer(STRANGER, api.challenge(STRANGER.wallet)).status_code == 200
    finally:
        application.state.services = before


# -- anything that the document allows, and what it does not -----------------------------------------------------------


def test_whatever_is_made_from_the_document_gets_no_5xx_and_is_not_let_in(api: Api) -> None:
    import schemathesis  # here, since each test process collects this file

    document = create_app(api.services).openapi()
    schema = schemathesis.openapi.from_dict(document)
    limits = settings(
        max_examples=5,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    tried = []
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # our own document is valid
        # It asks the servers of a pool, of which some are away in these tests: 503 is its answer.
        if operation.path == "/health":
            continue

        def try_one(case: Any) -> None:
            api.services.rates.reset()
            answer = case.call(base_url=str(api.http.base_url))
            tried.append(answer.status_code)
            assert answer.status_code < 500, (case.method, case.formatted_path, answer.text[:300])
            assert case.method == "GET" or answer.status_code >= 400 or "challenge" in case.path

        limits(given(case=operation.as_strategy())(try_one))()
    assert len(tried) > 40
    assert api.services.store.census.all_workers() == []
