"""PoCo event logs as JSON-RPC gives them, decoded to `protocol.events`; and back, for fakes that play a chain.

topics[0]   which event                    data   the arguments that are not indexed, 32 bytes each
topics[1…]  the indexed arguments,                (TaskFinalize: offset, length, then the bytes)
            left-padded to 32 bytes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from protocol import events
from protocol.errors import BadMessage
from protocol.hexbytes import to_hex
from protocol.keccak import keccak
from protocol.types import BlockHash, BlockNumber, Contract, DealId, Hash32, TaskId, Timestamp, TxHash, Wallet

#: Hex digits of one ABI word, and of the zeros in front of an address.
_WORD = 64
_ADDRESS_PAD = 24


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one event is laid out: indexed arguments, then words of data (`None`: a single `bytes` argument)."""

    signature: str
    indexed: int
    words: int | None
    build: Callable[..., events.Event]


def _task(word: str) -> TaskId:
    return TaskId("0x" + word)


def _wallet(word: str) -> Wallet:
    return Wallet("0x" + word[_ADDRESS_PAD:])


def _hash(word: str) -> Hash32:
    return Hash32("0x" + word)


_SHAPES = (
    _Shape(
        "SchedulerNotice(address,bytes32)",
        1,
        1,
        lambda pool, deal: events.SchedulerNotice(Contract(_wallet(pool)), DealId("0x" + deal)),
    ),
    _Shape(
        "TaskInitialize(bytes32,address)",
        2,
        0,
        lambda task, pool: events.TaskInitialize(_task(task), Contract(_wallet(pool))),
    ),
    _Shape(
        "TaskContribute(bytes32,address,bytes32)",
        2,
        1,
        lambda task, worker, vote: events.TaskContribute(_task(task), _wallet(worker), _hash(vote)),
    ),
    _Shape(
        "TaskConsensus(bytes32,bytes32)",
        1,
        1,
        lambda task, consensus: events.TaskConsensus(_task(task), _hash(consensus)),
    ),
    _Shape(
        "TaskReveal(bytes32,address,bytes32)",
        2,
        1,
        lambda task, worker, digest: events.TaskReveal(_task(task), _wallet(worker), _hash(digest)),
    ),
    _Shape("TaskReopen(bytes32)", 1, 0, lambda task: events.TaskReopen(_task(task))),
    _Shape(
        "TaskFinalize(bytes32,bytes)",
        1,
        None,
        lambda task, results: events.TaskFinalize(_task(task), "0x" + results),
    ),
    _Shape("TaskClaimed(bytes32)", 1, 0, lambda task: events.TaskClaimed(_task(task))),
    _Shape(
        "AccurateContribution(address,bytes32)",
        2,
        0,
        lambda worker, task: events.AccurateContribution(_wallet(worker), _task(task)),
    ),
    _Shape(
        "FaultyContribution(address,bytes32)",
        2,
        0,
        lambda worker, task: events.FaultyContribution(_wallet(worker), _task(task)),
    ),
)


def topic(signature: str) -> Hash32:
    """topics[0] of an event: keccak of its signature."""
    return Hash32(to_hex(keccak(signature.encode())))


_BY_TOPIC: Mapping[str, _Shape] = {topic(shape.signature): shape for shape in _SHAPES}
#: Event name to topics[0], for filters.
TOPICS: Mapping[str, Hash32] = {shape.signature.partition("(")[0]: topic(shape.signature) for shape in _SHAPES}


def decode(raw: Mapping[str, Any]) -> events.Event | None:
    """The event of one raw log, or None if it is none of PoCo's task events. Raises BadMessage when malformed."""
    topics = raw["topics"]
    shape = _BY_TOPIC.get(topics[0].lower()) if topics else None
    if shape is None:
        return None
    data = str(raw["data"])[2:].lower()
    words = [str(item)[2:].lower() for item in topics[1:]]
    if len(words) != shape.indexed or any(len(word) != _WORD for word in words):
        raise BadMessage(why=f"log {shape.signature} has {len(words)} indexed arguments")
    if shape.words is None:
        return shape.build(*words, _bytes(data, shape.signature))
    if len(data) != shape.words * _WORD:
        raise BadMessage(why=f"log {shape.signature} has {len(data) // 2} bytes of data")
    return shape.build(*words, *(data[start : start + _WORD] for start in range(0, len(data), _WORD)))


def _bytes(data: str, signature: str) -> str:
    """The one `bytes` argument in `data`, as hex digits."""
    try:
        start = int(data[:_WORD], 16) * 2
        length = int(data[start : start + _WORD], 16) * 2
    except ValueError as error:
        raise BadMessage(why=f"log {signature} has no length where one belongs") from error
    found = data[start + _WORD : start + _WORD + length]
    if len(found) != length:
        raise BadMessage(why=f"log {signature} ends before its {length // 2} bytes do")
    return found


def seen(raw: Mapping[str, Any], timestamp: Timestamp) -> events.Seen | None:
    """The event of one raw log with its place; `timestamp` is its block's. None and BadMessage as `decode`."""
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
    """The header fields Sluice keeps of an eth_getBlockBy… answer."""
    return events.BlockRef(
        number=BlockNumber(int(raw["number"], 16)),
        hash=BlockHash(raw["hash"].lower()),
        parent_hash=BlockHash(raw["parentHash"].lower()),
        timestamp=Timestamp(int(raw["timestamp"], 16)),
    )
