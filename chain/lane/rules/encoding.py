"""From intents to calls: which share a transaction, and their calldata.

JSON arguments by method; the subject is the task id, but for the last two:

    initialize               deal_id, index                        several share one initializeArray
    claim                    –                                     several share one claimArray
    contribute               result_hash, result_seal, authorization, [enclave_challenge, enclave_signature]
    reveal                   digest
    contributeAndFinalize    digest, results, authorization, [callback, enclave_challenge, enclave_signature]
    finalize                 results, [callback]
    reopen                   –
    manageWorkerpoolOrder    data                                  calldata that signs or closes an order
    call                     to, gas, [data, value]                any other call; value in wei, as text or number

Any of them may have `worth`: wei, as text, that are lost unless it succeeds (`chain.lane.rules.fees`).
`results` and `callback` are `0x` hex bytes, all others `0x` hex of the size their name says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eth_abi.exceptions import EncodingError

from chain.contracts import calls
from chain.lane.model.intent import Intent
from chain.lane.model.nonce import NO_WEI
from protocol.errors import BadMessage
from protocol.types import ZERO_ADDRESS, Contract, Signature, TaskId, Wei

_NO_SIGNATURE = Signature("0x")


@dataclass(frozen=True, slots=True)
class Call:
    """What one transaction does."""

    to: Contract
    #: Calldata, `0x` hex.
    data: str
    #: Gas limit.
    gas: int
    value: Wei = NO_WEI


class Encoder(Protocol):
    """Turns intents into calls."""

    def group(self, intents: Sequence[Intent]) -> list[tuple[Intent, ...]]:
        """Divide intents into groups that share a transaction, in the order in which they are to go."""

    def encode(self, group: tuple[Intent, ...]) -> Call:
        """The contract call of one group. Raises BadMessage if the arguments do not fit the method."""


#: Most gas of one transaction: EIP-7825.
_MAX_GAS = 2**24


class PocoEncoder:
    """Calls of the PoCo hub."""

    def __init__(self, hub: Contract, *, batch: int = 50, max_gas: int = _MAX_GAS) -> None:
        """`batch`: most intents per array call, as far as its gas limit stays within `max_gas`."""
        self._hub = hub
        self._most = {method: _largest_group(method, batch, max_gas) for method in _ARRAYS}

    def group(self, intents: Sequence[Intent]) -> list[tuple[Intent, ...]]:
        """Divide intents: `initialize` and `claim` by up to `batch`; others, and those whose group failed, alone.

        `initialize` last: gas that runs short goes first to what has stakes locked already, and only then locks more.
        """
        groups: list[list[Intent]] = []
        filling: dict[str, list[Intent]] = {}
        for intent in intents:
            shares = intent.method in _ARRAYS and not intent.alone
            open_group = filling.get(intent.method) if shares else None
            if open_group is not None and len(open_group) < self._most[intent.method]:
                open_group.append(intent)
                continue
            fresh = [intent]
            groups.append(fresh)
            if shares:
                filling[intent.method] = fresh
        return [tuple(group) for group in sorted(groups, key=lambda group: group[0].method == "initialize")]

    def encode(self, group: tuple[Intent, ...]) -> Call:
        """The hub call of one group. Raises BadMessage if the arguments do not fit the method."""
        first = group[0]
        try:
            if first.method == "call":
                return _encode_raw_call(first.args)
            if len(group) > 1:
                function, write_array = _ARRAYS[first.method]
                data = write_array(group)
            else:
                function = first.method
                data = _WRITERS[function](TaskId(first.subject), first.args)
        except (KeyError, TypeError, ValueError, EncodingError) as error:
            raise BadMessage(why=f"{first.method} of {first.subject} lacks or misspells {error}") from error
        return Call(self._hub, data, calls.gas_limit(function, data))


def _encode_raw_call(args: Mapping[str, Any]) -> Call:
    """The call of an intent with method `call`: target, calldata, gas limit and wei are its arguments."""
    return Call(Contract(args["to"]), args.get("data", "0x"), int(args["gas"]), Wei(int(args.get("value", 0))))


def _encode_contribute(task: TaskId, args: Mapping[str, Any]) -> str:
    """Calldata of `contribute` from an intent's arguments; zero address and no signature outside of enclaves."""
    return calls.contribute(
        task,
        args["result_hash"],
        args["result_seal"],
        args["authorization"],
        args.get("enclave_challenge") or ZERO_ADDRESS,
        args.get("enclave_signature") or _NO_SIGNATURE,
    )


def _encode_contribute_and_finalize(task: TaskId, args: Mapping[str, Any]) -> str:
    """Calldata of `contributeAndFinalize` from an intent's arguments."""
    return calls.contribute_and_finalize(
        task,
        args["digest"],
        args["results"],
        args["authorization"],
        args.get("callback") or "0x",
        args.get("enclave_challenge") or ZERO_ADDRESS,
        args.get("enclave_signature") or _NO_SIGNATURE,
    )


_WRITERS: dict[str, Callable[[TaskId, Mapping[str, Any]], str]] = {
    "initialize": lambda _, args: calls.initialize(args["deal_id"], args["index"]),
    "contribute": _encode_contribute,
    "contributeAndFinalize": _encode_contribute_and_finalize,
    "reveal": lambda task, args: calls.reveal(task, args["digest"]),
    "finalize": lambda task, args: calls.finalize(task, args["results"], args.get("callback") or "0x"),
    "reopen": lambda task, _: calls.reopen(task),
    "claim": lambda task, _: calls.claim(task),
    "manageWorkerpoolOrder": lambda _, args: str(args["data"]),
}
#: What this release can encode.
METHODS = frozenset({*_WRITERS, "call"})
_ARRAYS: dict[str, tuple[str, Callable[[tuple[Intent, ...]], str]]] = {
    "initialize": (
        "initializeArray",
        lambda group: calls.initialize_array(
            [(_argument(item, "deal_id"), _argument(item, "index")) for item in group]
        ),
    ),
    "claim": ("claimArray", lambda group: calls.claim_array([TaskId(item.subject) for item in group])),
}
#: Arrays that those functions take, and words of calldata per intent.
_SHAPES = {"initialize": (2, 2), "claim": (1, 1)}


def _argument(intent: Intent, name: str) -> Any:
    """One argument of an intent, by its name."""
    return intent.args[name]


def _largest_group(method: str, batch: int, max_gas: int) -> int:
    """The largest number of intents, up to `batch`, whose array call stays within `max_gas`; at least one."""
    function, _ = _ARRAYS[method]
    arrays, words = _SHAPES[method]

    def gas(number: int) -> int:
        # A selector, then for each array its offset, its length and its items.
        """Gas limit of an array call for so many intents."""
        return calls.gas_limit(function, "0x" + "00" * (4 + 32 * (2 * arrays + words * number)))

    return next((number for number in range(batch, 1, -1) if gas(number) <= max_gas), 1)
