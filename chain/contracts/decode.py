"""PoCo event logs as JSON-RPC gives them, decoded to `protocol.poco.events`; and back, for fakes that play a chain.

topics[0]   which event                    data   the arguments that are not indexed, 32 bytes each
topics[1…]  the indexed arguments,                (TaskFinalize: offset, length, then the bytes)
            left-padded to 32 bytes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.keccak import keccak
from protocol.poco import events
from protocol.types import BlockHash, BlockNumber, Hash32, Timestamp, TxHash

#: Hex digits of one ABI word, and of the zeros in front of an address.
_WORD = 64
_ADDRESS_PAD = 24


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one event is laid out: `indexed` arguments are topics, the others data; the class has the same order."""

    build: Callable[..., events.Event]
    arguments: tuple[str, ...]
    indexed: int

    @property
    def name(self) -> str:
        """The event's name: that of the class in `protocol.poco.events`."""
        return self.build.__name__

    @property
    def signature(self) -> str:
        """The event's signature, `name(type,type)`, whose keccak is topics[0]."""
        return f"{self.name}({','.join(self.arguments)})"


_SHAPES = (
    _Shape(events.SchedulerNotice, ("address", "bytes32"), 1),
    _Shape(events.TaskInitialize, ("bytes32", "address"), 2),
    _Shape(events.TaskContribute, ("bytes32", "address", "bytes32"), 2),
    _Shape(events.TaskConsensus, ("bytes32", "bytes32"), 1),
    _Shape(events.TaskReveal, ("bytes32", "address", "bytes32"), 2),
    _Shape(events.TaskReopen, ("bytes32",), 1),
    _Shape(events.TaskFinalize, ("bytes32", "bytes"), 1),
    _Shape(events.TaskClaimed, ("bytes32",), 1),
    _Shape(events.AccurateContribution, ("address", "bytes32"), 2),
    _Shape(events.FaultyContribution, ("address", "bytes32"), 2),
)


def topic(signature: str) -> Hash32:
    """topics[0] of an event: keccak of its signature."""
    return Hash32(to_hex(keccak(signature.encode())))


_BY_TOPIC: Mapping[str, _Shape] = {topic(shape.signature): shape for shape in _SHAPES}
#: Event name to topics[0], for filters.
TOPICS: Mapping[str, Hash32] = {shape.name: topic(shape.signature) for shape in _SHAPES}
_BY_NAME: Mapping[str, _Shape] = {shape.name: shape for shape in _SHAPES}


def decode(raw: Mapping[str, Any]) -> events.Event | None:
    """The event of one raw log, or None if it is none of PoCo's task events. Raises BadMessage when malformed."""
    topics = raw["topics"]
    shape = _BY_TOPIC.get(topics[0].lower()) if topics else None
    if shape is None:
        return None
    data = str(raw["data"])[2:].lower()
    words = [str(item)[2:].lower() for item in topics[1:]]
    if len(words) != shape.indexed:
        raise BadMessage(why=f"log {shape.signature} has {len(words)} indexed arguments")
    if shape.arguments[-1] == "bytes":
        return shape.build(_read_word("bytes32", words[0], shape), _read_bytes(data, shape))
    words += [data[start : start + _WORD] for start in range(0, len(data), _WORD)]
    if len(words) != len(shape.arguments):
        raise BadMessage(why=f"log {shape.signature} has {len(data) // 2} bytes of data")
    return shape.build(*(_read_word(kind, word, shape) for kind, word in zip(shape.arguments, words, strict=True)))


def encode(event: events.Event) -> tuple[list[str], str]:
    """Topics and data that an event would have in a log: the reverse of `decode`, for test chains."""
    shape = _BY_NAME[type(event).__name__]
    words = [str(getattr(event, field.name))[2:] for field in fields(event)]
    topics = ["0x" + word.rjust(_WORD, "0") for word in words[: shape.indexed]]
    data = words[shape.indexed :]
    if shape.arguments[-1] == "bytes":
        (content,) = data
        length = len(content) // 2
        padded = content.ljust(-(-len(content) // _WORD) * _WORD, "0")
        data = [f"{_WORD // 2:064x}", f"{length:064x}", padded]
    return [topic(shape.signature), *topics], "0x" + "".join(word.rjust(_WORD, "0") if word else "" for word in data)


def _read_word(kind: str, word: str, shape: _Shape) -> str:
    """The argument in one 32-byte word (64 hex digits) as `0x` hex, an address without its zeros. Raises BadMessage."""
    if len(word) != _WORD:
        raise BadMessage(why=f"log {shape.signature} has an argument of {len(word) // 2} bytes")
    return "0x" + (word[_ADDRESS_PAD:] if kind == "address" else word)


def _read_bytes(data: str, shape: _Shape) -> str:
    """The one `bytes` argument in a log's data, as `0x` hex. Raises BadMessage if `data` ends too early."""
    try:
        start = int(data[:_WORD], 16) * 2
        length = int(data[start : start + _WORD], 16) * 2
    except ValueError as error:
        raise BadMessage(why=f"log {shape.signature} has no length where one belongs") from error
    found = data[start + _WORD : start + _WORD + length]
    if len(found) != length:
        raise BadMessage(why=f"log {shape.signature} ends before its {length // 2} bytes do")
    return "0x" + found


def seen(raw: Mapping[str, Any], timestamp: Timestamp) -> events.Seen | None:
    """The event of one raw log with its place on the chain; `timestamp` is its block's.

    None and BadMessage as `decode`.
    """
    event = decode(raw)
    if event is None:
        return None
    return events.Seen(
        event=event,
        block_number=BlockNumber(int(raw["blockNumber"], 16)),
        block_hash=BlockHash(raw["blockHash"].lower()),
        timestamp=timestamp,
        tx_hash=TxHash(raw["transactionHash"].lower()),
        log_index=int(raw["logIndex"], 16),
    )


def block_ref(raw: Mapping[str, Any]) -> events.BlockRef:
    """Number, hash, parent hash and timestamp of a block, from the answer of eth_getBlockByNumber or …ByHash."""
    return events.BlockRef(
        number=BlockNumber(int(raw["number"], 16)),
        hash=BlockHash(raw["hash"].lower()),
        parent_hash=BlockHash(raw["parentHash"].lower()),
        timestamp=Timestamp(int(raw["timestamp"], 16)),
    )
