"""Hand-written hot paths against web3.py and eth-account: 10,000 generated cases, the same in every run."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from eth_abi.abi import encode as abi_encode
from eth_account import Account
from eth_utils.address import to_checksum_address
from web3 import Web3
from web3.contract import Contract as Web3Contract

from chain.contracts import calls, decode
from chain.contracts.abi import Function
from chain.contracts.contract import Abi, read_abi
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.signing import Key
from protocol.ethereum.transaction import LegacyTransaction, Transaction, sign_transaction
from protocol.poco import events
from protocol.types import Contract, Nonce, Wei

#: What web3.py is asked for: nothing, so it needs no node.
OFFLINE = Web3()
ADDRESS = to_checksum_address("0x" + "ab" * 20)
SECRET = b"\x11" * 32

#: Generated cases of each kind; together 10,000.
CALLS_EACH, EVENTS_EACH, ANSWERS_EACH, TRANSACTIONS = 225, 200, 200, 1600

CALLED = [
    *(calls.INITIALIZE, calls.INITIALIZE_ARRAY, calls.CONTRIBUTE, calls.REVEAL, calls.FINALIZE),
    *(calls.CONTRIBUTE_AND_FINALIZE, calls.REOPEN, calls.CLAIM, calls.CLAIM_ARRAY),
    *(calls.MATCH_ORDERS, calls.DEPOSIT, calls.WITHDRAW),
    *(calls.VIEW_TASK, calls.VIEW_CONTRIBUTION, calls.VIEW_DEAL, calls.VIEW_ACCOUNT, calls.VIEW_SCORE),
]
ANSWERED = [calls.VIEW_TASK, calls.VIEW_CONTRIBUTION, calls.VIEW_DEAL, calls.VIEW_ACCOUNT, calls.VIEW_SCORE]
EVENTS = [
    *(events.SchedulerNotice, events.TaskInitialize, events.TaskContribute, events.TaskConsensus, events.TaskReveal),
    *(events.TaskReopen, events.TaskFinalize, events.TaskClaimed, events.AccurateContribution),
    events.FaultyContribution,
]


def test_at_least_ten_thousand_cases_are_compared() -> None:
    kinds = CALLS_EACH * len(CALLED) + EVENTS_EACH * len(EVENTS) + ANSWERS_EACH * len(ANSWERED)

    assert kinds + TRANSACTIONS * 2 >= 10_000


@pytest.mark.parametrize("function", CALLED, ids=lambda function: function.name)
def test_calldata_is_byte_for_byte_what_web3_encodes(function: Function) -> None:
    draw = random.Random(function.name)
    entry, contract = _entry("function", function.name)

    for _ in range(CALLS_EACH):
        arguments = [_value(draw, part) for part in entry["inputs"]]
        theirs = contract.encode_abi(function.name, arguments)
        assert function.encode(*arguments) == theirs


@pytest.mark.parametrize("function", ANSWERED, ids=lambda function: function.name)
def test_an_answer_is_decoded_to_what_web3_decodes(function: Function) -> None:
    draw = random.Random(function.name)
    entry, _ = _entry("function", function.name)
    (output,) = entry["outputs"]
    kind = _kind(output)

    for _ in range(ANSWERS_EACH):
        value = _value(draw, output)
        raw = abi_encode([kind], [value])
        (theirs,) = OFFLINE.codec.decode([kind], raw)
        assert _plain(function.decode(to_hex(raw))[0]) == _plain(theirs)


@pytest.mark.parametrize("build", EVENTS, ids=lambda build: build.__name__)
def test_a_log_is_decoded_to_what_web3_decodes(build: Callable[..., events.Event]) -> None:
    draw = random.Random(build.__name__)
    entry, contract = _entry("event", build.__name__)

    for number in range(EVENTS_EACH):
        topics, data = decode.encode(build(*(_plain(_value(draw, part)) for part in entry["inputs"])))
        log = {
            "address": ADDRESS,
            "topics": [bytes.fromhex(topic[2:]) for topic in topics],
            "data": bytes.fromhex(data[2:]),
            "blockNumber": number,
            "blockHash": bytes(32),
            "transactionHash": bytes(32),
            "transactionIndex": 0,
            "logIndex": 0,
            "removed": False,
        }
        theirs = contract.events[build.__name__]().process_log(log)["args"]
        ours = decode.decode({"topics": topics, "data": data})
        assert ours is not None
        assert type(ours) is build
        wanted = [_plain(theirs[part["name"]]) for part in entry["inputs"]]
        assert [getattr(ours, field.name) for field in fields(ours)] == wanted


def test_transactions_of_both_kinds_are_signed_byte_for_byte_like_eth_account() -> None:
    draw, key = random.Random("transactions"), Key(SECRET)

    for _ in range(TRANSACTIONS):
        to = draw.choice([None, Contract(to_hex(draw.randbytes(20)))])
        common: dict[str, Any] = {
            "chain_id": draw.choice([1, 134, 31337, 42161]),
            "nonce": Nonce(_number(draw, 64)),
            "to": to,
            "data": to_hex(draw.randbytes(draw.choice([0, 1, 31, 54, 55, 56, 200]))),
            "value": Wei(_number(draw, 128)),
            "gas": _number(draw, 32),
        }
        cap, tip = _number(draw, 64), _number(draw, 64)
        given = {"chainId": common["chain_id"], **{name: common[name] for name in ("nonce", "data", "value", "gas")}}
        if to is not None:
            given["to"] = to_checksum_address(to)
        for ours, fees in (
            (
                Transaction(**common, max_fee_per_gas=Wei(cap), max_priority_fee_per_gas=Wei(tip)),
                {"type": 2, "maxFeePerGas": cap, "maxPriorityFeePerGas": tip},
            ),
            (LegacyTransaction(**common, gas_price=Wei(cap)), {"gasPrice": cap}),
        ):
            theirs = Account.sign_transaction({**given, **fees}, SECRET)
            assert sign_transaction(key, ours) == (theirs.raw_transaction.to_0x_hex(), theirs.hash.to_0x_hex())


# -- generated values --------------------------------------------------------------------------------------------------


def _entry(kind: str, name: str) -> tuple[dict[str, Any], Web3Contract]:
    """The ABI entry of that name, and a contract with no other: web3.py looks through all it has at each call."""
    (entry,) = (entry for entry in read_abi(Abi.HUB) if entry["type"] == kind and entry["name"] == name)
    return entry, OFFLINE.eth.contract(ADDRESS, abi=[entry])


def _value(draw: random.Random, part: dict[str, Any]) -> Any:
    """A value of an ABI part, as web3.py takes it."""
    kind: str = part["type"]
    if kind.endswith("[]"):
        return [_value(draw, {**part, "type": kind[:-2]}) for _ in range(draw.choice([0, 1, 2, 7]))]
    if kind == "tuple":
        return tuple(_value(draw, each) for each in part["components"])
    if kind == "address":
        return to_checksum_address(to_hex(draw.randbytes(20)))
    if kind == "string":
        return "".join(draw.choice('aé日\U0001f600 \n\0"\\') for _ in range(draw.choice([0, 1, 31, 32, 33, 90])))
    if kind == "bytes":
        return draw.randbytes(draw.choice([0, 1, 31, 32, 33, 65, 300]))
    if kind.startswith("bytes"):
        return draw.randbytes(int(kind[5:]))
    if kind == "bool":
        return draw.random() < 0.5
    assert kind.startswith("uint"), kind
    return _number(draw, int(kind[4:]))


def _number(draw: random.Random, bits: int) -> int:
    """Often an edge: 0, 1, where RLP and words change length, the largest."""
    edges = [0, 1, 127, 128, 255, (1 << bits) - 1]
    number = draw.choice([*edges, draw.getrandbits(bits), draw.getrandbits(bits // 2)])
    return int(number) % (1 << bits)


def _kind(part: dict[str, Any]) -> str:
    """The part's type as eth_abi writes it."""
    kind: str = part["type"]
    inner = ",".join(_kind(each) for each in part.get("components", ()))
    return kind.replace("tuple", f"({inner})")


def _plain(value: Any) -> Any:
    """A value in Sluice's forms: bytes as `0x` text, addresses in lower case."""
    if isinstance(value, bytes):
        return to_hex(value)
    if isinstance(value, list | tuple):
        return tuple(_plain(each) for each in value)
    return value.lower() if isinstance(value, str) and Web3.is_address(value) else value
