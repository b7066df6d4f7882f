"""Sign-ins of worker machines at a real API, broker and database: challenges, tokens, second machines, bans."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import amqp
import httpx
import pytest

from config.http_server.rates import parsed
from pipeline.api.auth.challenges import CHALLENGE_SECONDS
from pipeline.api.auth.tokens import TOKEN_SECONDS
from pipeline.broker.notify import Notifier
from pipeline.domain.records import ChainFacts
from pipeline.flow.machines.bans import ban, unban
from protocol.errors import NotFound
from protocol.signin import SignIn
from protocol.types import NRlc, Wei
from protocol.wire import PROTOCOL_HEADER, Login, Session
from tests.integration.api.broker import connect
from tests.integration.api.conftest import OFFER, STRANGER, WORKER, Api
from tests.waiting import ample, wait_until

ONE, OTHER = "1" * 32, "2" * 32
NOTHING_TO_SAY = {"forget": [], "abort": [], "unknown": [], "superseded": False}


def header_of(session: Session) -> dict[str, str]:
    return {"authorization": f"Bearer {session.token}"}


def refused(response: httpx.Response, status: int, words: str) -> None:
    assert (response.status_code, words in response.json()["error"]) == (status, True), response.text
    assert response.json()["fix"]


def test_a_worker_signs_in_pings_and_reaches_its_queues(api: Api) -> None:
    session = api.sign_in(WORKER)
    pong = api.http.post("/workers/ping", json={"tasks": []}, headers={"authorization": f"Bearer {session.token}"})
    assert (pong.status_code, pong.json()) == (200, NOTHING_TO_SAY)
    with connect(session.broker) as connection:
        connection.channel().basic_consume(session.broker.compute_queue)
    worker = api.services.store.workers.get_worker(WORKER.wallet)
    assert worker is not None
    assert worker.slots == 1


@pytest.mark.parametrize("header", [{}, {PROTOCOL_HEADER: "1"}])
def test_the_answer_to_a_machine_of_an_older_release_says_to_upgrade_and_it_keeps_what_it_has(
    api: Api, header: dict[str, str]
) -> None:
    before = api.sign_in(WORKER)
    challenge = api.challenge(WORKER.wallet)
    signature = WORKER.sign_typed_data(SignIn.from_typed_data(challenge.typed_data).typed_data)
    login = Login(wallet=WORKER.wallet, nonce=challenge.nonce, signature=signature, capabilities=OFFER)
    answer = api.http.post("/workers/login", json=login.model_dump(), headers=header)
    refused(answer, 403, "too old for this pool: it speaks protocol 1, the pool 2; install the pool's release")
    connect(before.broker).close()


def test_a_second_machine_with_the_wallet_is_refused_and_the_first_goes_on_undisturbed(api: Api) -> None:
    first = api.sign_in(WORKER, machine=ONE)
    refused(api.answer(WORKER, api.challenge(WORKER.wallet), machine=OTHER), 403, "another machine (m) is at work")
    with connect(first.broker) as connection:
        connection.channel().basic_consume(first.broker.compute_queue)
    assert api.ping(first, ONE) == NOTHING_TO_SAY
    assert api.sign_in(WORKER, machine=ONE).broker.password != first.broker.password


def test_a_machine_that_has_stopped_or_is_silent_leaves_its_wallet_to_another(api: Api) -> None:
    first = api.sign_in(WORKER, machine=ONE)
    api.http.post("/workers/leave", json={"machine": ONE}, headers=header_of(first)).raise_for_status()
    second = api.sign_in(WORKER, machine=OTHER)
    api.clock.ahead = api.settings.worker_lost_seconds + 1
    third = api.sign_in(WORKER, machine=ONE)
    assert api.ping(second, OTHER)["superseded"]
    assert api.ping(third, ONE) == NOTHING_TO_SAY


def test_a_machine_may_take_a_wallet_over_which_cuts_the_other_one_off(api: Api) -> None:
    first = api.sign_in(WORKER, machine=ONE)
    connection = connect(first.broker)
    second = api.sign_in(WORKER, machine=OTHER, take_over=True)
    with pytest.raises((amqp.exceptions.ConnectionForced, OSError)) as cut:
        wait_until(lambda: connection.drain_events(timeout=ample(5)), 5.0)
    assert not isinstance(cut.value, TimeoutError)
    assert api.ping(first, ONE)["superseded"]
    assert api.ping(second, OTHER) == NOTHING_TO_SAY


def test_a_machine_that_stops_gets_no_new_task_until_it_is_back(api: Api) -> None:
    session = api.sign_in(WORKER, machine=ONE)
    workers = api.services.store.workers

    workers.store_facts([(WORKER.wallet, ChainFacts(2, NRlc(0), Wei(1), funded=True))], api.clock())

    def matched() -> bool:
        return bool(workers.with_free_slots(0.0, 10))

    assert matched()
    # Another machine's word says nothing of this one.
    api.http.post("/workers/leave", json={"machine": OTHER}, headers=header_of(session)).raise_for_status()
    assert matched()
    api.http.post("/workers/leave", json={"machine": ONE}, headers=header_of(session)).raise_for_status()
    assert not matched()
    api.ping(session, ONE)
    assert matched()


def test_a_machine_that_signs_off_again_and_again_is_told_of_once_and_then_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = api.sign_in(WORKER, machine=ONE)
    told: list[Notifier] = []
    real = Notifier.send_orders

    def send(notifier: Notifier) -> None:
        told.append(notifier)
        real(notifier)

    monkeypatch.setattr(Notifier, "send_orders", send)
    most = parsed("it", api.settings.rate_sign_in_wallet).amount
    for _ in range(most - 1):
        api.http.post("/workers/leave", json={"machine": ONE}, headers=header_of(session)).raise_for_status()
    assert len(told) == 1
    answer = api.http.post("/workers/leave", json={"machine": ONE}, headers=header_of(session))
    refused(answer, 429, "Too many requests")


def test_the_answer_to_a_machine_with_too_many_slots_names_the_limit(api: Api) -> None:
    most = api.settings.worker_most_slots
    offer = OFFER.model_dump() | {"slots": most + 1}
    refused(api.answer(WORKER, api.challenge(WORKER.wallet), capabilities=offer), 403, f"at most {most} slots")
    offer["slots"] = most
    assert api.answer(WORKER, api.challenge(WORKER.wallet), capabilities=offer).status_code == 200


def test_a_challenge_works_once(api: Api) -> None:
    challenge = api.challenge(WORKER.wallet)
    assert api.answer(WORKER, challenge).status_code == 200
    refused(api.answer(WORKER, challenge), 401, "answered before")


def test_of_many_answers_to_one_challenge_at_a_time_one_wins(api: Api) -> None:
    challenge = api.challenge(WORKER.wallet)
    with ThreadPoolExecutor(8) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: api.answer(WORKER, challenge), range(8))]
    assert sorted(statuses) == [200] + [401] * 7


def test_an_expired_challenge_is_refused(api: Api) -> None:
    challenge = api.challenge(WORKER.wallet)
    api.clock.ahead = CHALLENGE_SECONDS + 1
    refused(api.answer(WORKER, challenge), 401, "expired")


def test_a_challenge_signed_by_another_key_is_refused(api: Api) -> None:
    refused(api.answer(STRANGER, api.challenge(WORKER.wallet), wallet=WORKER.wallet), 401, "not signed by")


def test_a_challenge_of_another_wallet_cannot_be_used(api: Api) -> None:
    refused(api.answer(STRANGER, api.challenge(WORKER.wallet)), 401, "not one that this pool gave")


def test_a_refused_login_leaves_no_broker_user_behind(api: Api) -> None:
    api.answer(STRANGER, api.challenge(WORKER.wallet), wallet=WORKER.wallet)
    assert api.services.store.workers.get_worker(WORKER.wallet) is None


def test_signing_in_again_rotates_the_password_and_keeps_open_connections(api: Api) -> None:
    first = api.sign_in(WORKER)
    with connect(first.broker) as connection:
        second = api.sign_in(WORKER)
        assert second.broker.password != first.broker.password
        connection.channel().queue_declare(first.broker.compute_queue, passive=True)
        with pytest.raises(amqp.exceptions.AccessRefused):
            connect(first.broker)
        connect(second.broker).close()


def test_a_request_without_a_valid_token_is_refused(api: Api) -> None:
    for header in ({}, {"authorization": "Bearer a.b.c"}):
        refused(api.http.post("/workers/ping", json={"tasks": []}, headers=header), 401, "Not signed in")


def test_an_expired_token_is_refused(api: Api) -> None:
    header = api.bearer(WORKER)
    api.clock.ahead = TOKEN_SECONDS + 1
    refused(api.http.post("/workers/ping", json={"tasks": []}, headers=header), 401, "expired")


def test_a_ban_ends_token_login_and_connection_at_once(api: Api) -> None:
    session = api.sign_in(WORKER)
    header = {"authorization": f"Bearer {session.token}"}
    connection = connect(session.broker)
    ban(api.services.store.workers, api.services.broker, WORKER.wallet, api.clock())
    refused(api.http.post("/workers/ping", json={"tasks": []}, headers=header), 403, "banned")
    refused(api.answer(WORKER, api.challenge(WORKER.wallet)), 403, "banned")
    with pytest.raises((amqp.exceptions.ConnectionForced, OSError)) as cut:
        wait_until(lambda: connection.drain_events(timeout=ample(5)), 5.0)
    assert not isinstance(cut.value, TimeoutError)
    with pytest.raises(amqp.exceptions.AccessRefused):
        connect(session.broker)
    unban(api.services.store.workers, WORKER.wallet)
    connect(api.sign_in(WORKER).broker).close()


def test_a_wallet_that_never_signed_in_cannot_be_banned(api: Api) -> None:
    with pytest.raises(NotFound):
        ban(api.services.store.workers, api.services.broker, STRANGER.wallet, api.clock())


def test_a_body_with_unknown_keys_is_refused(api: Api) -> None:
    refused(api.http.post("/workers/challenge", json={"wallet": WORKER.wallet, "admin": True}), 400, "admin")


def test_an_oversize_body_is_refused_whether_or_not_it_says_so(api: Api) -> None:
    large = b"[" * 200_000
    refused(api.http.post("/workers/challenge", content=large), 413, "larger than")
    refused(api.http.post("/workers/challenge", content=iter([large])), 413, "larger than")


def test_a_body_that_is_no_message_is_refused(api: Api) -> None:
    headers = {"content-type": "application/json"}
    bodies = [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"wallet": 1e999}', b"null"]
    answers = [api.http.post("/workers/challenge", content=body, headers=headers) for body in bodies]
    assert [answer.status_code for answer in answers] == [400] * len(bodies)
