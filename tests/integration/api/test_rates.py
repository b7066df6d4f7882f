"""Limits of what one wallet may ask, on a real served API: one request too many is a 429, and others are served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx

from config.http_server.rates import RateLimits
from config.settings import read_settings
from pipeline.domain.records import TaskRecord
from protocol.ethereum.signing import Key
from tests.integration.api.conftest import REQUESTER, STRANGER, TASK, WORKER, Api


@contextmanager
def limited(api: Api, **limits: str) -> Iterator[None]:
    """The API with other limits in the block."""
    before = api.services
    api.application.state.services = replace(before, rates=RateLimits.of(read_settings(**limits)))
    try:
        yield
    finally:
        api.application.state.services = before


def refused_then(answers: list[httpx.Response], allowed: int) -> bool:
    """Whether so many were let through to the route and all others got a 429 with a time to wait."""
    late = answers[allowed:]
    return all(answer.status_code != 429 for answer in answers[:allowed]) and all(
        answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1 for answer in late
    )


def test_uploads_of_one_wallet_are_limited_from_whatever_address_and_others_go_on(
    api: Api, give: Callable[..., TaskRecord]
) -> None:
    give(trust=5)
    worker, stranger = api.bearer(WORKER), api.bearer(STRANGER)

    def put(header: dict[str, str], number: int) -> httpx.Response:
        own = {**header, "x-forwarded-for": f"203.0.113.{number}"}
        return api.http.put(f"/tasks/{TASK}/result", content=b"x", headers=own)

    with limited(api, rate_upload="3/minute"):
        answers = [put(worker, number) for number in range(5)]
        assert refused_then(answers, 3)
        # What is here of an upload costs as much to look up.
        held = api.http.head(f"/tasks/{TASK}/result", headers={**worker, "repr-digest": "x"})
        assert held.status_code == 429
        assert put(stranger, 1).status_code == 403


def test_requests_of_one_wallet_for_what_apps_printed_are_limited_from_whatever_address_and_others_go_on(
    api: Api, give: Callable[..., TaskRecord]
) -> None:
    give()

    def read(key: Key, number: int) -> httpx.Response:
        challenge = api.http.get("/tasks/logs/challenge", params={"address": key.wallet}).json()
        authorization = f"0x{'00' * 32}_{key.sign_typed_data(challenge)}_{key.wallet}"
        own = {"authorization": authorization, "x-forwarded-for": f"203.0.113.{number}"}
        return api.http.get(f"/tasks/{TASK}/logs", headers=own)

    with limited(api, rate_logs="2/minute"):
        # A name that is not proven uses up nobody's share.
        forged = {"authorization": f"0x{'00' * 32}_0x{'11' * 65}_{REQUESTER.wallet}"}
        for _ in range(4):
            assert api.http.get(f"/tasks/{TASK}/logs", headers=forged).status_code == 401
        answers = [read(REQUESTER, number) for number in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
        assert refused_then(answers, 2)
        assert read(STRANGER, 9).status_code == 403


def test_challenges_for_one_wallet_keep_its_owner_out_of_nothing(api: Api) -> None:
    """They are counted for addresses only: a limit for wallets could be used up by whoever knows the wallet."""
    with limited(api, rate_sign_in_wallet="2/minute"):
        for _ in range(20):
            assert api.challenge(WORKER.wallet).nonce
        assert api.answer(WORKER, api.challenge(WORKER.wallet)).status_code == 200
