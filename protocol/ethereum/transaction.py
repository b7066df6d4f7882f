"""Transactions as bytes: EIP-1559 and legacy (EIP-155), signed without a library between.

0x02 ‖ rlp(chain id, nonce, tip, fee cap, gas, to, value, data, access list (empty), y parity, r, s)
       rlp(nonce, gas price, gas, to, value, data, v = chain id · 2 + 35 + y parity, r, s)

Byte for byte what eth_account writes, at ten times its rate: a lane signs thousands in one run.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.ethereum.rlp import encode_bytes, encode_int, encode_list
from protocol.ethereum.signing import Key
from protocol.types import Contract, Nonce, TxHash, Wallet, Wei

_TYPE_1559 = b"\x02"
_NO_ACCESS_LIST = encode_list()
_NO_WEI = Wei(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What to send, EIP-1559; fees are per unit of gas."""

    chain_id: int
    nonce: Nonce
    #: Receiver; None creates a contract from `data`.
    to: Contract | Wallet | None
    #: Calldata as `0x` hex.
    data: str = "0x"
    value: Wei = _NO_WEI
    #: Gas limit, in units.
    gas: int
    max_fee_per_gas: Wei
    max_priority_fee_per_gas: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyTransaction:
    """What to send on a chain without EIP-1559 or where gas is free; the fee is per unit of gas."""

    chain_id: int
    nonce: Nonce
    #: Receiver; None creates a contract from `data`.
    to: Contract | Wallet | None
    #: Calldata as `0x` hex.
    data: str = "0x"
    value: Wei = _NO_WEI
    #: Gas limit, in units.
    gas: int
    gas_price: Wei


def sign_transaction(key: Key, transaction: Transaction | LegacyTransaction) -> tuple[str, TxHash]:
    """The raw transaction for `eth_sendRawTransaction` as `0x` hex, and its hash."""
    raw = _sign_1559(key, transaction) if isinstance(transaction, Transaction) else _sign_legacy(key, transaction)
    return to_hex(raw), TxHash(to_hex(keccak(raw)))


def _sign_1559(key: Key, transaction: Transaction) -> bytes:
    """The raw bytes of a signed EIP-1559 transaction."""
    body = (
        encode_int(transaction.chain_id)
        + encode_int(transaction.nonce)
        + encode_int(transaction.max_priority_fee_per_gas)
        + encode_int(transaction.max_fee_per_gas)
        + _encode_common_fields(transaction)
        + _NO_ACCESS_LIST
    )
    r, s, parity = _split_signature(key.sign_digest(keccak(_TYPE_1559 + encode_list(body))))
    return _TYPE_1559 + encode_list(body, encode_int(parity), encode_int(r), encode_int(s))


def _sign_legacy(key: Key, transaction: LegacyTransaction) -> bytes:
    """The raw bytes of a signed legacy transaction, with replay protection of EIP-155."""
    body = encode_int(transaction.nonce) + encode_int(transaction.gas_price) + _encode_common_fields(transaction)
    unsigned = encode_list(body, encode_int(transaction.chain_id), encode_int(0), encode_int(0))
    r, s, parity = _split_signature(key.sign_digest(keccak(unsigned)))
    return encode_list(body, encode_int(transaction.chain_id * 2 + 35 + parity), encode_int(r), encode_int(s))


def _encode_common_fields(transaction: Transaction | LegacyTransaction) -> bytes:
    """RLP of the fields that both kinds of transaction have in this order: gas, to, value, data."""
    to = b"" if transaction.to is None else to_bytes(transaction.to, 20)
    return (
        encode_int(transaction.gas)
        + encode_bytes(to)
        + encode_int(transaction.value)
        + encode_bytes(to_bytes(transaction.data))
    )


def _split_signature(signature: bytes) -> tuple[int, int, int]:
    """r, s and the parity of y, from a 65-byte signature."""
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64] - 27
