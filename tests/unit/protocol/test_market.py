"""Signing in to the market: only a challenge is ever signed, whatever the market asks for."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.signing import Key, recover_typed_data_wallet
from protocol.ethereum.typed_data import typed_data_digest
from protocol.market import LONGEST_CHALLENGE, challenge_typed_data, sign_in
from protocol.types import Signature

KEY = Key.from_hex("11" * 32)
CHAIN = 134


def challenge(**changes: Any) -> dict[str, Any]:
    """What the market sends, as iexec-market-api 7.1.2 builds it."""
    data: dict[str, Any] = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
            ],
            "Challenge": [{"name": "challenge", "type": "string"}],
        },
        "domain": {"name": "iExec Gateway", "version": "1", "chainId": CHAIN},
        "primaryType": "Challenge",
        "message": {"challenge": "Sign this message to log into iExec Gateway: x"},
    }
    return data | changes


@pytest.mark.parametrize("chain_id", [CHAIN, str(CHAIN)])
def test_a_challenge_is_signed_as_the_sdk_does(chain_id: int | str) -> None:
    data = challenge(domain={"name": "iExec Gateway", "version": "1", "chainId": chain_id})
    digest, signature, address = sign_in(KEY, CHAIN, data).split("_")
    wanted = challenge_typed_data(CHAIN, data["message"]["challenge"])
    assert digest == to_hex(typed_data_digest(wanted))
    assert recover_typed_data_wallet(wanted, Signature(signature)) == KEY.wallet == address


@pytest.mark.parametrize(
    "changes",
    [
        {"primaryType": "WorkerpoolOrder"},
        {"domain": {"name": "iExecODB", "version": "5.0.0", "chainId": CHAIN, "verifyingContract": "0x" + "1" * 40}},
        {"domain": {"name": "iExec Gateway", "version": "1", "chainId": CHAIN + 1}},
        {"domain": {"name": "iExec Gateway", "version": "1", "chainId": CHAIN, "salt": "0x"}},
        {"domain": "iExec Gateway"},
        {"message": {"challenge": "x", "volume": 1}},
        {"message": {"challenge": 1}},
        {"message": {"challenge": "x" * (LONGEST_CHALLENGE + 1)}},
        {"message": {"challenge": "\ud800"}},
        {"message": {"challenge": "two\nlines"}},
        {"message": {}},
        {"types": {"Challenge": [{"name": "challenge", "type": "bytes32"}]}},
        {"types": {}},
        {"more": 1},
    ],
)
def test_nothing_else_is_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(BadMessage, match="something else than a sign-in"):
        sign_in(KEY, CHAIN, challenge(**changes))


def test_an_empty_answer_is_no_challenge() -> None:
    with pytest.raises(BadMessage):
        sign_in(KEY, CHAIN, {})
