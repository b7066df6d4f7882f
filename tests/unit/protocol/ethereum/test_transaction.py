"""Signed transactions and their RLP, byte for byte as eth-account writes them."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from protocol.ethereum.rlp import encode_bytes, encode_int, encode_list
from protocol.ethereum.transaction import LegacyTransaction, Transaction, sign_transaction
from protocol.types import Nonce, Wallet, Wei
from tests.unit.protocol import vectors

ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: Wallet("0x" + raw.hex()))
#: Zero, one byte, the edges of RLP's short form, and whatever else fits.
NUMBERS = st.one_of(st.sampled_from([0, 1, 127, 128, 255, 256]), st.integers(0, 2**63 - 1))
DATA = st.one_of(
    st.binary(max_size=80), st.sampled_from([bytes(54), bytes(55), bytes(56), b"\x7f", b"\x80", bytes(70_000)])
)
COMMON = st.fixed_dictionaries(
    {
        "chain_id": st.sampled_from([1, 15, 134, 31337, 42161]),
        "nonce": NUMBERS.map(Nonce),
        "to": st.one_of(st.none(), ADDRESSES),
        "data": DATA.map(lambda raw: "0x" + raw.hex()),
        "value": NUMBERS.map(Wei),
        "gas": NUMBERS,
    }
)


def as_eth_account_writes(fields: dict[str, Any], **fees: int) -> tuple[str, str]:
    transaction = {
        "chainId": fields["chain_id"],
        "nonce": fields["nonce"],
        "data": fields["data"],
        "value": fields["value"],
        "gas": fields["gas"],
        **fees,
    }
    if fields["to"] is not None:
        transaction["to"] = to_checksum_address(fields["to"])
    signed = Account.sign_transaction(transaction, b"\x11" * 32)
    return signed.raw_transaction.to_0x_hex(), signed.hash.to_0x_hex()


@given(COMMON, NUMBERS, NUMBERS)
def test_an_eip_1559_transaction_is_signed_byte_for_byte_like_eth_account(
    fields: dict[str, Any], cap: int, tip: int
) -> None:
    ours = Transaction(**fields, max_fee_per_gas=Wei(cap), max_priority_fee_per_gas=Wei(tip))
    theirs = as_eth_account_writes(fields, type=2, maxFeePerGas=cap, maxPriorityFeePerGas=tip)
    assert sign_transaction(vectors.WORKER, ours) == theirs


@given(COMMON, NUMBERS)
def test_a_legacy_transaction_is_signed_byte_for_byte_like_eth_account(fields: dict[str, Any], price: int) -> None:
    ours = LegacyTransaction(**fields, gas_price=Wei(price))
    assert sign_transaction(vectors.WORKER, ours) == as_eth_account_writes(fields, gasPrice=price)


def test_the_sender_of_a_raw_transaction_is_the_keys_wallet() -> None:
    transaction = Transaction(
        chain_id=31337,
        nonce=Nonce(0),
        to=vectors.POOL_OWNER_WALLET,
        gas=21_000,
        max_fee_per_gas=Wei(1),
        max_priority_fee_per_gas=Wei(1),
    )
    raw, _ = sign_transaction(vectors.WORKER, transaction)
    assert Account.recover_transaction(raw).lower() == vectors.WORKER_WALLET


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        # Examples of the Ethereum wiki.
        (encode_bytes(b"dog"), b"\x83dog"),
        (encode_list(encode_bytes(b"cat"), encode_bytes(b"dog")), b"\xc8\x83cat\x83dog"),
        (encode_bytes(b""), b"\x80"),
        (encode_list(), b"\xc0"),
        (encode_int(0), b"\x80"),
        (encode_int(15), b"\x0f"),
        (encode_int(1024), b"\x82\x04\x00"),
        (encode_bytes(b"\x00"), b"\x00"),
        (encode_bytes(b"x" * 55), b"\xb7" + b"x" * 55),
        (encode_bytes(b"x" * 56), b"\xb8\x38" + b"x" * 56),
        (encode_list(*[b"\x01"] * 256), b"\xf9\x01\x00" + b"\x01" * 256),
    ],
)
def test_rlp_is_written_as_the_specification_shows(encoded: bytes, expected: bytes) -> None:
    assert encoded == expected
