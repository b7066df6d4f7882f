"""The three answers a node can give to a question: yes, no, and "I cannot say".

    Known(value)   the node shows it
    Absent(why)    it certainly does not exist, and `why` says what proves that
    Unknown(why)   nothing follows: ask again, another node or later
    Broken(why)    it exists and Sluice can never use it; only where a caller must be able to quarantine it

A node alone never proves an absence. `null`, `0x`, an error, an answer of the wrong shape, an answer cut short and no
answer at all are Unknown, because a node that is starting, syncing, pruned, throttled or behind gives each of them for
things that exist. `Absent` is built only where something else is known that rules the thing out, for example a
contract's own revert at a block that is on our chain, or the contract's own zero record at a block after the one where
the record would have been written.

`Answer` is a union, so a caller cannot reach the value without saying what it does in the other two cases:

    match answer:
        case Known(receipt): ...
        case Absent(why): ...
        case Unknown(why): ...

What comes over the wire is a `Reply`, of which nothing can be used before `decode_reply` has made an answer of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from protocol.errors import BadMessage, RpcError, RpcUnavailable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

#: Most characters of a node's own words in a log.
_WORDS = 300
#: What reading a value of an unexpected shape raises.
MISREAD = (BadMessage, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Known(Generic[T_co]):
    """The node shows it."""

    value: T_co


@dataclass(frozen=True, slots=True)
class Absent:
    """What was asked for certainly does not exist; `why` names the proof, for logs."""

    why: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing follows from what the node said; `why` is a phrase without anything secret, for logs."""

    why: str


@dataclass(frozen=True, slots=True)
class Broken:
    """What was asked for exists, and reading it again will never help; `why` is a phrase for the operator."""

    why: str


Answer: TypeAlias = Known[T] | Absent | Unknown

#: What a node says to one request of a batch: a result, its own error as RpcError, or null. To the compiler it is only
#: `object`, so that no caller can use it as a value: it goes through `decode_reply`, which makes Known or Unknown
#: of it, or `isinstance` checks it. That costs nothing while the lane runs.
Reply: TypeAlias = object


def decode_reply(raw: object, read: Callable[[Any], T]) -> Known[T] | Unknown:
    """The value that `read` takes from one JSON-RPC result, or Unknown.

    `raw`: an element of `JsonRpc.batch`, or a part of one. Known if `read` succeeds. Unknown for an RpcError, for null,
    and if `read` raises one of MISREAD. Never Absent: a caller that has a proof replaces Unknown by Absent itself.
    """
    if isinstance(raw, RpcError):
        return Unknown(f"error {raw.code}: {raw.message}"[:_WORDS])
    if raw is None:
        return Unknown("the node answered null")
    try:
        return Known(read(raw))
    except MISREAD as error:
        return Unknown(f"the node's answer has another shape than expected ({type(error).__name__}: {error})"[:_WORDS])


def decode_replies(raw: Iterable[object], read: Callable[[Any], T]) -> list[Known[T] | Unknown]:
    """`decode_reply` of each result of a batch, in order."""
    return [decode_reply(each, read) for each in raw]


def values(answers: Sequence[Answer[T]], node: str) -> list[T]:
    """The values of answers that a caller needs all of. Raises RpcUnavailable, naming `node`, unless all are Known."""
    return [value_of(answer, node) for answer in answers]


def value_of(answer: Answer[T], node: str) -> T:
    """The value of an answer that a caller cannot do without. Raises RpcUnavailable, naming `node`, unless Known."""
    if isinstance(answer, Known):
        return answer.value
    raise RpcUnavailable(what=node, why=answer.why)


def parse_quantity(text: Any) -> int:
    """The number of a JSON-RPC quantity such as "0x1a"; given to `decode_reply` by those who ask for numbers."""
    return int(text, 16)
