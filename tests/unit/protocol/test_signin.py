"""Sign-in challenges and their signatures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from protocol.errors import BadMessage, Refused
from protocol.signin import SignIn
from protocol.types import Contract, Hash32, Timestamp
from tests.unit.protocol import vectors

CHALLENGE = SignIn(
    chain_id=31337,
    workerpool=Contract("0x" + "a2" * 20),
    wallet=vectors.WORKER_WALLET,
    nonce=Hash32("0x" + "5a" * 32),
    expires_at=Timestamp(1_700_000_300),
)
NOW = 1_700_000_000.0


def test_the_answer_is_what_any_ethereum_wallet_would_sign() -> None:
    signed = Account.sign_message(encode_typed_data(full_message=dict(CHALLENGE.typed_data)), b"\x11" * 32)
    assert CHALLENGE.sign(vectors.WORKER) == signed.signature.to_0x_hex()


def test_a_challenge_survives_the_way_through_json() -> None:
    assert SignIn.from_typed_data(json.loads(json.dumps(CHALLENGE.typed_data))) == CHALLENGE


def test_the_right_answer_in_time_is_accepted() -> None:
    assert CHALLENGE.check(CHALLENGE.sign(vectors.WORKER), NOW) is None  # type: ignore[func-returns-value]  # it returns


def test_an_answer_at_the_expiry_is_too_late() -> None:
    with pytest.raises(Refused, match="expired"):
        CHALLENGE.check(CHALLENGE.sign(vectors.WORKER), CHALLENGE.expires_at)


@pytest.mark.parametrize(
    "other",
    [
        replace(CHALLENGE, chain_id=1),
        replace(CHALLENGE, workerpool=Contract("0x" + "a3" * 20)),
        replace(CHALLENGE, nonce=Hash32("0x" + "5b" * 32)),
        replace(CHALLENGE, expires_at=Timestamp(CHALLENGE.expires_at + 1)),
    ],
)
def test_the_answer_to_another_challenge_is_refused(other: SignIn) -> None:
    with pytest.raises(Refused, match="not signed by"):
        CHALLENGE.check(other.sign(vectors.WORKER), NOW)


def test_another_wallets_answer_is_refused() -> None:
    with pytest.raises(Refused, match="not signed by"):
        CHALLENGE.check(vectors.POOL_OWNER.sign_typed_data(CHALLENGE.typed_data), NOW)


def test_a_wallet_does_not_answer_a_challenge_for_another() -> None:
    with pytest.raises(Refused, match="not for"):
        CHALLENGE.sign(vectors.POOL_OWNER)


def changed(path: tuple[str, ...], value: object) -> dict[str, Any]:
    data = json.loads(json.dumps(CHALLENGE.typed_data))
    inner = data
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return dict(data)


@pytest.mark.parametrize(
    "lie",
    [
        {},
        changed(("primaryType",), "RequestOrder"),
        changed(("domain", "name"), "iExecODB"),
        changed(("domain", "version"), "5.0.0"),
        changed(("domain", "salt"), "0x" + "00" * 32),
        changed(("domain", "chainId"), "1"),
        changed(("message", "volume"), 1),
        changed(("message", "wallet"), None),
        changed(("types", "SignIn"), []),
        changed(("types", "RequestOrder"), [{"name": "app", "type": "address"}]),
        changed(("types", "EIP712Domain"), []),
    ],
)
def test_an_api_cannot_have_anything_else_signed(lie: dict[str, Any]) -> None:
    with pytest.raises(BadMessage, match="something else"):
        SignIn.from_typed_data(lie)
