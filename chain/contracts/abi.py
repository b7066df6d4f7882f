"""Contract functions as values: a signature, its selector, and raw encoding and decoding of arguments.

No contract objects: eth_abi on flat types takes about 16 µs a call where an object with the full ABI takes 200 to 3000.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode
from eth_abi.codec import ABICodec
from eth_abi.decoding import StringDecoder
from eth_abi.exceptions import DecodingError
from eth_abi.registry import ABIRegistry
from eth_abi.registry import registry as standard

from protocol.errors import BadMessage
from protocol.ethereum.keccak import keccak

#: Length of a function selector in bytes.
SELECTOR_BYTES = 4
#: Name under which decoders know `_decode_bad_bytes`.
_AS_JAVA = "sluice-as-java"
#: Half a surrogate pair written as if it were a character, perhaps cut short.
_HALF_PAIR = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]?")


def _decode_bad_bytes(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: U+FFFD for bytes that are not UTF-8, and where to read on, as Java 17 does it.

    CPython does the same except for half a surrogate pair: it gives one U+FFFD for each byte, Java one for all.
    """
    if not isinstance(error, UnicodeDecodeError):
        raise error
    half = _HALF_PAIR.match(error.object, error.start)
    return "\ufffd", error.end if half is None else half.end()


codecs.register_error(_AS_JAVA, _decode_bad_bytes)


class _Text(StringDecoder):
    """A `string` as Java clients read it: bytes that are no UTF-8 become U+FFFD.

    No contract checks what is in a string, so a strict reader lets anybody make a deal that nobody can read and whose
    stake stays locked. Deal params that differ from what other pools' workers read would cost their machines stakes.
    """

    def __init__(self) -> None:
        super().__init__(_AS_JAVA)  # type: ignore[no-untyped-call]  # eth_abi leaves its decoders untyped


def _codec_with_java_strings() -> ABICodec:
    """The codec for answers: eth_abi's own, with strings decoded by `_Text`. Called once, at import."""
    registry: ABIRegistry = standard.copy()  # type: ignore[no-untyped-call]  # eth_abi has no types for it
    registry.unregister_decoder("string")
    registry.register_decoder("string", _Text, label="string")
    return ABICodec(registry)


_CODEC = _codec_with_java_strings()


@dataclass(frozen=True, slots=True)
class Function:
    """One contract function: `name(type,type)` with the types of its answer.

    Hex strings are taken for `bytes` and `bytes32` arguments, also inside tuples and arrays.
    """

    signature: str
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = field(init=False)
    selector: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", _split_types(self.signature[self.signature.index("(") + 1 : -1]))
        object.__setattr__(self, "selector", keccak(self.signature.encode())[:SELECTOR_BYTES])

    @property
    def name(self) -> str:
        """The function's name without its types."""
        return self.signature.partition("(")[0]

    def encode(self, *args: object) -> str:
        """Calldata of a call with these arguments, as `0x` hex."""
        values = [_hex_to_bytes(kind, value) for kind, value in zip(self.inputs, args, strict=True)]
        return "0x" + (self.selector + encode(self.inputs, values)).hex()

    def decode(self, answer: str) -> tuple[Any, ...]:
        """The values in the `0x` hex answer of an eth_call.

        Raises BadMessage when the answer does not fit `outputs`.
        """
        try:
            return _CODEC.decode(self.outputs, bytes.fromhex(answer[2:]))
        except (DecodingError, ValueError) as error:
            raise BadMessage(why=f"{self.name} answered {len(answer) // 2 - 1} bytes that are not its types") from error


def _hex_to_bytes(kind: str, value: Any) -> Any:
    """The value as eth_abi takes it: `0x` hex text as bytes wherever the ABI type `kind` wants bytes, at any depth."""
    if kind.endswith("[]"):
        return [_hex_to_bytes(kind[:-2], item) for item in value]
    if kind.startswith("("):
        return tuple(_hex_to_bytes(part, item) for part, item in zip(_split_types(kind[1:-1]), value, strict=True))
    if kind.startswith("bytes") and isinstance(value, str):
        return bytes.fromhex(value.removeprefix("0x"))
    return value


def _split_types(types: str) -> tuple[str, ...]:
    """The ABI types of a comma-separated list, tuples kept whole: "uint256,(address,bytes)" gives two."""
    parts: list[str] = []
    depth = 0
    for piece in types.split(",") if types else ():
        if depth:
            parts[-1] += "," + piece
        else:
            parts.append(piece)
        depth += piece.count("(") - piece.count(")")
    return tuple(parts)
