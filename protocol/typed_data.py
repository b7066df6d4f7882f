"""EIP-712: the 32 bytes that stand for a JSON document of `types`, `primaryType`, `domain` and `message`.

digest = keccak(0x1901 ‖ hashStruct(domain) ‖ hashStruct(message))
hashStruct(s) = keccak(typeHash ‖ one 32-byte word a member)        typeHash = keccak("Name(type member,…)Others…")

word of   uint/int/bool   big-endian, left padded      string, bytes   keccak of the content
          address         left padded                  T[]             keccak of the members' words
          bytes1..32      right padded                 struct          hashStruct
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

from protocol.errors import BadMessage
from protocol.hexbytes import to_bytes
from protocol.keccak import keccak

_ARRAY = re.compile(r"^(?P<item>.+)\[(?P<length>\d*)\]$")
_SIZED = re.compile(r"^(?P<kind>uint|int|bytes)(?P<size>\d+)$")


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
    """The 32 bytes to sign for `data`; BadMessage if a type or a value does not fit."""
    types = data["types"]
    domain = hash_struct(types, "EIP712Domain", data["domain"])
    return digest_in_domain(domain, hash_struct(types, data["primaryType"], data["message"]))


def digest_in_domain(domain_separator: bytes, struct_hash: bytes) -> bytes:
    """The 32 bytes to sign for a struct whose hash is known, in a domain whose hash is known."""
    return keccak(b"\x19\x01" + domain_separator + struct_hash)


def hash_struct(types: Mapping[str, Sequence[Member]], name: str, value: Mapping[str, object]) -> bytes:
    """hashStruct of `value` as struct `name`; members that are missing or too many are BadMessage."""
    if name not in types:
        raise BadMessage(why=f"typed data lacks the type {name!r}")
    members = types[name]
    if {member["name"] for member in members} != set(value):
        raise BadMessage(why=f"the members of a {name} are not those of its type")
    words = [_word(types, member["type"], value[member["name"]]) for member in members]
    return keccak(keccak(encode_type(types, name).encode()) + b"".join(words))


def encode_type(types: Mapping[str, Sequence[Member]], name: str) -> str:
    """EIP-712 encodeType: the struct itself, then the structs it uses in order of their names."""
    used = _structs_used(types, name, frozenset()) - {name}
    return "".join(_encode_struct(struct, types[struct]) for struct in (name, *sorted(used)))


def _encode_struct(name: str, members: Sequence[Member]) -> str:
    return name + "(" + ",".join(member["type"] + " " + member["name"] for member in members) + ")"


def _structs_used(types: Mapping[str, Sequence[Member]], name: str, known: frozenset[str]) -> frozenset[str]:
    base = name.partition("[")[0]
    if base in known or base not in types:
        return known
    known |= {base}
    for member in types[base]:
        known = _structs_used(types, member["type"], known)
    return known


def _word(types: Mapping[str, Sequence[Member]], kind: str, value: object) -> bytes:
    if array := _ARRAY.match(kind):
        return _array_word(types, array["item"], array["length"], value)
    if kind in types:
        if not isinstance(value, Mapping):
            raise BadMessage(why=f"a {kind} must be an object")
        return hash_struct(types, kind, value)
    match kind, value:
        case "string", str():
            return keccak(value.encode())
        case "bytes", str():
            return keccak(to_bytes(value))
        case "address", str():
            return to_bytes(value, 20).rjust(32, b"\0")
        case "bool", bool():
            return int(value).to_bytes(32, "big")
        case _:
            return _sized_word(kind, value)


def _array_word(types: Mapping[str, Sequence[Member]], item: str, length: str, value: object) -> bytes:
    if not isinstance(value, list | tuple) or (length and len(value) != int(length)):
        raise BadMessage(why=f"an array of {item} has the wrong shape")
    return keccak(b"".join(_word(types, item, one) for one in value))


def _sized_word(kind: str, value: object) -> bytes:
    sized = _SIZED.match(kind)
    if sized is None:
        raise BadMessage(why=f"a {type(value).__name__} does not fit the type {kind!r}")
    size = int(sized["size"])
    if sized["kind"] == "bytes" and isinstance(value, str) and 1 <= size <= 32:
        return to_bytes(value, size).ljust(32, b"\0")
    # JSON carries big numbers as decimal text, as wallets accept them.
    if sized["kind"] != "bytes" and isinstance(value, int | str) and not isinstance(value, bool):
        return _integer_word(sized["kind"], size, value)
    raise BadMessage(why=f"a {type(value).__name__} does not fit the type {kind!r}")


def _integer_word(kind: str, bits: int, value: int | str) -> bytes:
    signed = kind == "int"
    try:
        number = int(value, 0) if isinstance(value, str) else value
        number.to_bytes(bits // 8, "big", signed=signed)
        return number.to_bytes(32, "big", signed=signed)
    except (ValueError, OverflowError) as error:
        raise BadMessage(why=f"a number does not fit the type {kind}{bits}") from error
