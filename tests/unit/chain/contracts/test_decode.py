"""Event logs of the PoCo contracts: topics, decoding and encoding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.contracts import decode
from chain.testing import raw_log
from protocol.errors import BadMessage
from protocol.poco import events
from protocol.types import (
    BlockHash,
    BlockNumber,
    Contract,
    DealId,
    Hash32,
    TaskId,
    Timestamp,
    TxHash,
    Wallet,
)

POOL = Contract("0x" + "aa" * 20)
WORKER = Wallet("0x" + "bb" * 20)
TASK = TaskId("0x" + "11" * 32)
HASH = Hash32("0x" + "22" * 32)
BLOCK = events.BlockRef(BlockNumber(7), BlockHash("0x" + "07" * 32), BlockHash("0x" + "06" * 32), Timestamp(1700))

EVERY_EVENT: list[events.Event] = [
    events.SchedulerNotice(POOL, DealId(HASH)),
    events.TaskInitialize(TASK, POOL),
    events.TaskContribute(TASK, WORKER, HASH),
    events.TaskConsensus(TASK, HASH),
    events.TaskReveal(TASK, WORKER, HASH),
    events.TaskReopen(TASK),
    events.TaskFinalize(TASK, "0x" + "ab" * 87),
    events.TaskFinalize(TASK, "0x"),
    events.TaskClaimed(TASK),
    events.AccurateContribution(WORKER, TASK),
    events.FaultyContribution(WORKER, TASK),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # Topics as the contracts emit them.
        ("SchedulerNotice", "0x692ad61076dceddd0f1a861f737553dd61fc8501cf4190d29c4e90af6607f765"),
        ("TaskInitialize", "0x252992fb0468d68d6a5784ec03214f0d0a362083f2d7ebd157af43b017a22e06"),
        ("TaskContribute", "0x3fdb8d7797562d49a81078dbf7fa1771958ea452f8b13d1148383bd9506aecfb"),
        ("TaskConsensus", "0xf6d49bf3e05d33a4bc497d3c793fb5756388bb96b947cf51bb60aaecb0e022e3"),
        ("TaskReveal", "0x4b1763d473ac8fa80b4432ba90047e1b92444d8fabc55e6a002d9b1a316d7959"),
        ("TaskReopen", "0x3afe0f24796ce653c6ab1f3e7aba5ce564eece5e82aee724aff28253e829f07b"),
        ("TaskFinalize", "0x78ce8a8bc0fcb704e8ba3b3dbb36aa88002df8038128b4af2f27ef65db665044"),
        ("TaskClaimed", "0xcbc308b5f91040d2659a5201858344b0b583cd2f9e18e8470c2fa052c5b21ff8"),
        ("AccurateContribution", "0x9703f4589802246c80b822e63697180da799e363cd1b6fd9465a5e5574d53492"),
        ("FaultyContribution", "0xf868788948d55240774fdbad06555105ef20bbc70d1b7eccda982b65e11e79bb"),
    ],
)
def test_topics_are_those_of_the_contracts(name: str, expected: str) -> None:
    assert decode.TOPICS[name] == expected


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: type(event).__name__)
def test_every_event_survives_encoding_and_decoding(event: events.Event) -> None:
    assert decode.decode(raw_log(event, BLOCK, 3, POOL)) == event


@given(st.binary(max_size=200))
def test_results_of_any_length_come_back_exactly(results: bytes) -> None:
    event = events.TaskFinalize(TASK, "0x" + results.hex())

    assert decode.decode(raw_log(event, BLOCK, 0, POOL)) == event


def test_a_log_keeps_its_place_on_the_chain() -> None:
    raw = raw_log(events.TaskReopen(TASK), BLOCK, 3, POOL)

    seen = decode.seen(raw, BLOCK.timestamp)

    assert seen == events.Seen(
        event=events.TaskReopen(TASK),
        block_number=BLOCK.number,
        block_hash=BLOCK.hash,
        timestamp=BLOCK.timestamp,
        tx_hash=TxHash(raw["transactionHash"]),
        log_index=3,
    )


def test_hex_in_capitals_is_made_small() -> None:
    raw = raw_log(events.TaskConsensus(TASK, Hash32("0x" + "ab" * 32)), BLOCK, 0, POOL)
    raw["data"] = "0x" + "AB" * 32

    assert decode.decode(raw) == events.TaskConsensus(TASK, Hash32("0x" + "ab" * 32))


@pytest.mark.parametrize("topics", [[], ["0x" + "99" * 32]])
def test_logs_that_are_not_of_a_task_are_none(topics: list[str]) -> None:
    assert decode.decode({"topics": topics, "data": "0x"}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"data": "0x"},
        {"data": "0x" + "22" * 33},
        {"topics": [decode.TOPICS["TaskConsensus"]]},
        {"topics": [decode.TOPICS["TaskConsensus"], "0x1234"]},
        {"topics": [decode.TOPICS["TaskFinalize"], TASK], "data": "0x"},
        {"topics": [decode.TOPICS["TaskFinalize"], TASK], "data": "0x" + f"{32:064x}{99:064x}"},
    ],
)
def test_a_malformed_log_is_refused(change: dict[str, Any]) -> None:
    raw = {**raw_log(events.TaskConsensus(TASK, HASH), BLOCK, 0, POOL), **change}

    with pytest.raises(BadMessage):
        decode.decode(raw)
