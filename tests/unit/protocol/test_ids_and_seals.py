"""Ids of deals and tasks, result hashes and seals, against iExec's."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import BadMessage
from protocol.ethereum.keccak import keccak
from protocol.poco.ids import deal_id, task_id
from protocol.poco.orders import RequestOrder
from protocol.poco.seal import result_hash, result_seal
from protocol.types import Contract, DealId, Hash32, TaskId
from tests.unit.protocol import vectors


def test_keccak_is_ethereums_and_not_sha3() -> None:
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@pytest.mark.parametrize("case", vectors.cases("task_id"))
def test_task_ids_are_those_of_iexec(case: dict[str, Any]) -> None:
    assert task_id(case["deal"], case["index"]) == case["task"]


@pytest.mark.parametrize(
    ("index", "task"),
    [
        (0, "0x1b293e4eb86240288f63652bfb856771bbb605d76217a27917774cd87ccee4b4"),
        (5, "0x18b3fc1f7fa45f715f294f3c5e67537311b9c25ce0f86e206e853426e3dccbc5"),
    ],
)
def test_task_ids_are_those_of_the_documented_example(index: int, task: str) -> None:
    assert task_id(vectors.DEAL, index) == task


def test_a_deal_id_hashes_the_request_order_and_the_volume_already_consumed() -> None:
    order = RequestOrder(
        app=Contract("0x" + "a1" * 20), requester=vectors.WORKER.wallet, volume=5, category=0, salt=vectors.DIGEST
    )
    order_hash = order.order_hash(31337, Contract("0x" + "bb" * 20))
    expected = keccak(bytes.fromhex(order_hash[2:]) + bytes(31) + b"\x03")
    assert deal_id(order_hash, 3) == "0x" + expected.hex()
    assert deal_id(order_hash, 0) != deal_id(order_hash, 3)


@pytest.mark.parametrize("case", vectors.cases("hash_and_seal"))
def test_result_hashes_and_seals_are_those_of_iexec(case: dict[str, Any]) -> None:
    assert result_hash(case["task"], case["digest"]) == case["hash"]
    assert result_seal(case["worker"], case["task"], case["digest"]) == case["seal"]


def test_result_hash_and_seal_are_those_of_the_documented_example() -> None:
    assert result_hash(vectors.TASK, vectors.DIGEST) == vectors.RESULT_HASH
    assert result_seal(vectors.WORKER_WALLET, vectors.TASK, vectors.DIGEST) == vectors.RESULT_SEAL


@pytest.mark.parametrize("broken", ["", "1234", "0x12", "0xzz", "0x" + "00" * 31, "0x" + "00" * 33])
def test_ids_that_are_not_32_bytes_of_hex_are_refused(broken: str) -> None:
    with pytest.raises(BadMessage):
        task_id(DealId(broken), 0)
    with pytest.raises(BadMessage):
        result_hash(TaskId(broken), Hash32(broken))


def test_a_megabyte_of_bad_hex_is_not_quoted_back() -> None:
    with pytest.raises(BadMessage) as caught:
        task_id(DealId("x" * 1_000_000), 0)
    assert len(str(caught.value)) < 200
