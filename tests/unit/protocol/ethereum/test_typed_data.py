"""EIP-712 digests, against eth-account's, and values that do not fit their type."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage
from protocol.ethereum.keccak import keccak
from protocol.ethereum.typed_data import TypedData, typed_data_digest

ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
PEOPLE = st.fixed_dictionaries({"name": st.text(max_size=20), "wallet": ADDRESSES})
LETTERS = st.fixed_dictionaries(
    {
        "from": PEOPLE,
        "to": st.lists(PEOPLE, max_size=3),
        "stamps": st.lists(st.integers(0, 255), min_size=2, max_size=2),
        "urgent": st.booleans(),
        "balance": st.integers(-(2**127), 2**127 - 1),
        "weight": st.integers(0, 2**256 - 1),
        "seal": st.binary(min_size=4, max_size=4).map(lambda raw: "0x" + raw.hex()),
        "body": st.binary(max_size=70).map(lambda raw: "0x" + raw.hex()),
    }
)


def letter(message: dict[str, Any]) -> TypedData:
    return {
        "types": {
            "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "salt", "type": "bytes32"}],
            "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
            "Letter": [
                {"name": "from", "type": "Person"},
                {"name": "to", "type": "Person[]"},
                {"name": "stamps", "type": "uint8[2]"},
                {"name": "urgent", "type": "bool"},
                {"name": "balance", "type": "int128"},
                {"name": "weight", "type": "uint256"},
                {"name": "seal", "type": "bytes4"},
                {"name": "body", "type": "bytes"},
            ],
        },
        "primaryType": "Letter",
        "domain": {"name": "Post", "salt": "0x" + "5a" * 32},
        "message": message,
    }


GOOD: dict[str, Any] = {
    "from": {"name": "Ada", "wallet": "0x" + "aa" * 20},
    "to": [],
    "stamps": [1, 2],
    "urgent": True,
    "balance": -1,
    "weight": 7,
    "seal": "0x01020304",
    "body": "0x",
}


@given(LETTERS)
def test_every_kind_of_member_is_hashed_like_eth_account_does(message: dict[str, Any]) -> None:
    data = letter(message)
    signable = encode_typed_data(full_message=dict(data))
    assert typed_data_digest(data) == keccak(b"\x19" + signable.version + signable.header + signable.body)


@pytest.mark.parametrize(
    "change",
    [
        {"weight": -1},
        {"weight": 2**256},
        {"weight": "ten"},
        {"weight": True},
        {"stamps": [256, 0]},
        {"stamps": 1},
        {"balance": 2**127},
    ],
)
def test_a_value_that_does_not_fit_its_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        typed_data_digest(letter(GOOD | change))


def test_an_unknown_type_is_refused() -> None:
    data = letter(GOOD)
    with pytest.raises(BadMessage, match="lacks the type"):
        typed_data_digest({**data, "primaryType": "Parcel"})
    with pytest.raises(BadMessage, match="malformed"):
        typed_data_digest(
            {**data, "types": {**data["types"], "Letter": [{"name": "a", "type": "float"}]}, "message": {"a": 1}}
        )


def test_numbers_may_be_written_as_text() -> None:
    assert typed_data_digest(letter(GOOD | {"weight": "7"})) == typed_data_digest(letter(GOOD))
    assert typed_data_digest(letter(GOOD | {"weight": "0x7"})) == typed_data_digest(letter(GOOD))
