"""EIP-712: the 32 bytes that stand for a JSON document of `types`, `primaryType`, `domain` and `message`.

The encoding is eth-account's, which takes a third of a second to import: that is done on first use. It is lenient (a
missing member counts as zero), so only documents that Sluice builds itself are hashed, never one that was received.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from eth_abi.exceptions import EncodingError

from protocol.errors import BadMessage
from protocol.ethereum.keccak import keccak
from protocol.ethereum.library import load_eth_account


class Member(TypedDict):
    """One member of a struct type."""

    name: str
    type: str


class TypedData(TypedDict):
    """The document as wallets and `eth_signTypedData_v4` take it."""

    types: Mapping[str, Sequence[Member]]
    primaryType: str
    domain: Mapping[str, object]
    message: Mapping[str, object]


def typed_data_digest(data: TypedData) -> bytes:
    """The 32 bytes to sign for `data`. Raises BadMessage if a type or a value does not fit."""
    load_eth_account()
    from eth_account.messages import encode_typed_data  # noqa: PLC0415 # on first use, see above

    if data["primaryType"] not in data["types"]:
        # eth-account takes the only type that no other uses instead.
        raise BadMessage(why=f"typed data lacks the type {data['primaryType']!r}")
    try:
        message = encode_typed_data(full_message=dict(data))
    except (EncodingError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadMessage(why=f"the typed data is malformed: {error}") from error
    return keccak(b"\x19" + message.version + message.header + message.body)
