"""Messages between machines and the pool: their shapes, bounds, and secrets that are not shown."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from protocol.wire import LOG_TAIL_CHARACTERS, BrokerAccess, Login, Ping, Report, Session, Step
from tests.unit.protocol import vectors

LOGIN: dict[str, Any] = {
    "wallet": vectors.WORKER_WALLET,
    "nonce": "0x" + "5a" * 32,
    "signature": "0x" + "ab" * 65,
    "capabilities": {
        "name": "machine-1",
        "version": "0.1.0",
        "slots": 2,
        "cpus": 4,
        "memory_bytes": 8 * 2**30,
        "tag": "0x" + "00" * 32,
    },
}
BROKER = BrokerAccess(
    host="pool.example",
    port=5671,
    tls=True,
    vhost="pool",
    username="w.0x19",
    password="not-to-be-shown",
    exchange="w.0x19",
    compute_queue="w.0x19",
    tx_queue="w.0x19.tx",
)


def test_a_login_survives_the_way_through_json() -> None:
    login = Login.model_validate(LOGIN)
    assert Login.model_validate_json(login.model_dump_json()) == login


@pytest.mark.parametrize(
    "change",
    [
        {"wallet": vectors.WORKER_WALLET.upper()},
        {"wallet": "w.#"},
        {"wallet": vectors.WORKER_WALLET + "\n"},
        {"nonce": "0x5a"},
        {"signature": "0x" + "ab" * 64},
        {"admin": True},
        {"capabilities": {**LOGIN["capabilities"], "slots": 0}},
        {"capabilities": {**LOGIN["capabilities"], "slots": 1_000_000}},
        {"capabilities": {**LOGIN["capabilities"], "name": "x" * 65}},
    ],
)
def test_a_login_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Login.model_validate({**LOGIN, **change})


def test_a_report_may_carry_the_tail_of_the_logs_and_no_more() -> None:
    assert Report(step=Step.COMPUTED, stdout="x" * LOG_TAIL_CHARACTERS).stdout
    with pytest.raises(ValidationError):
        Report(step=Step.COMPUTED, stdout="x" * (LOG_TAIL_CHARACTERS + 1))


def test_a_ping_names_a_bounded_number_of_tasks() -> None:
    with pytest.raises(ValidationError):
        Ping(tasks=[vectors.TASK] * 1025)


def test_neither_password_nor_token_is_shown() -> None:
    session = Session(token="secret-token", expires_at=0, broker=BROKER)
    assert "not-to-be-shown" not in repr(session)
    assert "secret-token" not in repr(session)
