"""How a machine comes to a session, and what it makes of the secret service's words."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from protocol.enclave.secrets import app_secret, dataset_key, requester_secret
from protocol.enclave.session import APP, POST_COMPUTE, PRE_COMPUTE, Session
from protocol.errors import BadSetting, TaskDeclined, Unavailable
from protocol.poco.view import TaskStatus
from protocol.results.error_result import EnclaveFailure, blames_task, counts_against_machine
from protocol.types import ZERO_ADDRESS
from tests.unit.sms.world import APP as APP_CONTRACT
from tests.unit.sms.world import DATASET, OWNER, REQUESTER, TASK, WORKER, World, execution, with_deal, with_place
from tests.unit.workers.enclave.service import Hours, Wire
from workers.enclave import ask
from workers.enclave.sms_api import SmsApi

SECRETS = ["the-datasets-key", "the-developers-secret", "the-requesters-secret"]


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    made = Wire.of(tmp_path)
    world = made.world
    world.chain.executions[TASK] = execution(iexec_secrets={"1": "mine"})
    world.keep(OWNER, dataset_key(DATASET), SECRETS[0].encode())
    world.keep(OWNER, app_secret(APP_CONTRACT), SECRETS[1].encode())
    world.keep(REQUESTER, requester_secret(REQUESTER.wallet, "mine"), SECRETS[2].encode())
    return made


def taken(wire: Wire, hours: Hours | None = None) -> Session:
    return ask.take_session(wire.api, wire.assignment(), (hours or Hours()).deadline())


def declined(wire: Wire, hours: Hours | None = None) -> str:
    with pytest.raises(TaskDeclined) as caught:
        taken(wire, hours)
    return str(caught.value.fields["cause"])


def test_a_machine_that_never_was_there_before_stores_its_token_and_gets_the_session(wire: Wire) -> None:
    session = taken(wire)
    found = {service.name: service.environment for service in session.services}
    assert list(found) == [PRE_COMPUTE, APP, POST_COMPUTE]
    assert found[PRE_COMPUTE]["IEXEC_DATASET_KEY"] == SECRETS[0]
    assert found[APP]["IEXEC_APP_DEVELOPER_SECRET"] == SECRETS[1]
    assert found[APP]["IEXEC_REQUESTER_SECRET_1"] == SECRETS[2]
    assert wire.asked == ["POST /tee", "POST /secrets", "POST /tee", "GET /tee/simulated"]
    # The token is there: the next session takes two requests.
    wire.asked.clear()
    taken(wire)
    assert wire.asked == ["POST /tee", "GET /tee/simulated"]


def test_a_session_that_was_taken_is_refused_to_whoever_repeats_the_request(wire: Wire) -> None:
    taken(wire)
    place = wire.api.open_session(wire.assignment())
    wire.api.take_session(place)
    with pytest.raises(Unavailable, match="HTTP 404"):
        wire.api.take_session(place)


def test_a_session_whose_answer_was_lost_is_replaced_by_another(wire: Wire) -> None:
    taken(wire)
    place = wire.api.open_session(wire.assignment())
    wire.api.take_session(place)
    # As if that answer had never come: the machine, or its next process, begins anew.
    assert taken(wire).name != place.session_id


@pytest.mark.parametrize(
    "trouble",
    [500, 502, 503, 429, 404, httpx.ConnectError("gone"), httpx.ReadTimeout("slow")],
    ids=str,
)
def test_a_service_that_says_nothing_is_asked_again_and_blamed_only_when_no_time_is_left(
    wire: Wire, trouble: int | Exception
) -> None:
    taken(wire)
    wire.instead = [trouble] * 3
    assert taken(wire).services
    wire.instead = [trouble] * 1000
    hours = Hours()
    cause = declined(wire, hours)
    assert cause == "TEE_SESSION_GENERATION_UNKNOWN_ISSUE"
    assert not blames_task(cause)
    assert not counts_against_machine(cause)
    # The app's 10 s and what follows it are left of the 1,000 s.
    assert hours.now < 960.0


def test_work_may_begin_before_its_task_is_on_chain(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    taken(wire)
    assignment = wire.assignment()
    there = wire.world.chain.executions[TASK]
    wire.world.chain.executions[TASK] = with_place(there, status=TaskStatus.UNSET)
    hours, waits = Hours(), 0

    def mined(seconds: float) -> None:
        nonlocal waits
        waits += 1
        hours.now += seconds
        wire.world.chain.executions[TASK] = there

    monkeypatch.setattr(hours, "_sleep", mined)
    assert ask.take_session(wire.api, assignment, hours.deadline()).services
    assert waits == 1


def no_dataset_key(world: World) -> None:
    world.store.rows.pop(dataset_key(DATASET).key)


def no_result_key(world: World) -> None:
    world.chain.executions[TASK] = execution(iexec_result_encryption=True)


def another_pool(world: World) -> None:
    there = world.chain.executions[TASK]
    world.chain.executions[TASK] = with_deal(there, workerpool_owner=OWNER.wallet)


def no_bulk(world: World) -> None:
    world.chain.executions[TASK] = execution(bulk_cid="Qm")


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (no_dataset_key, EnclaveFailure.NO_DATASET_KEY),
        (no_result_key, EnclaveFailure.NO_RESULT_KEY),
        (another_pool, "TEE_SESSION_GENERATION_EXECUTION_NOT_AUTHORIZED_INVALID_SIGNATURE"),
        (no_bulk, EnclaveFailure.NO_DATASET_KEY),
    ],
    ids=["no dataset key", "no result key", "another pool", "no bulk"],
)
def test_what_the_service_refuses_is_declined_at_once_with_its_word(
    wire: Wire, spoil: Callable[[World], None], cause: str
) -> None:
    taken(wire)
    assignment = wire.assignment()
    spoil(wire.world)
    hours = Hours()
    with pytest.raises(TaskDeclined) as caught:
        ask.take_session(wire.api, assignment, hours.deadline())
    assert caught.value.fields["cause"] == cause
    assert hours.now == 0.0
    assert blames_task(cause) == isinstance(cause, EnclaveFailure)
    assert not counts_against_machine(cause)


def test_a_challenge_that_is_not_the_tasks_gets_no_session(wire: Wire) -> None:
    taken(wire)
    with pytest.raises(TaskDeclined) as caught:
        ask.take_session(wire.api, wire.assignment(enclave_challenge=ZERO_ADDRESS), Hours().deadline())
    assert str(caught.value.fields["cause"]).startswith("TEE_SESSION_GENERATION_EXECUTION_NOT_AUTHORIZED")


def test_no_secret_is_in_a_repr_an_error_or_a_log_line(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as logged:
        session = taken(wire)
        place = wire.api.open_session(wire.assignment())
        monkeypatch.setattr(wire, "_carry", lambda _: spoilt(session))
        with pytest.raises(Unavailable) as caught:
            wire.api.take_session(place)
    said = [repr(session), str(session), repr(caught.value), repr(caught.value.__cause__), json.dumps(logged)]
    said.append("".join(traceback.format_exception(caught.value)))
    assert not [text for text in said for secret in SECRETS if secret in text]


def spoilt(session: Session) -> httpx.Response:
    """The session as an answer whose last service is no service."""
    content = session.model_dump()
    content["services"] = [*content["services"], {"name": 1}]
    return httpx.Response(200, content=iter([json.dumps(content).encode()]))


def test_a_service_elsewhere_is_reached_through_tls_or_not_at_all() -> None:
    with pytest.raises(BadSetting, match="SLUICE_ALLOW_PLAINTEXT"):
        SmsApi("http://sms.example", WORKER)
    SmsApi("http://sms.example", WORKER, allow_plaintext=True)
    SmsApi("https://sms.example", WORKER)
