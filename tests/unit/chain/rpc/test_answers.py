"""What follows from an answer, and what does not."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.rpc.answers import Absent, Answer, Known, Unknown, decode_reply, value_of
from chain.rpc.client import JsonRpc, Rpc
from chain.rpc.pool import RpcPool
from chain.testing import FakeChain
from protocol.errors import BadMessage, RpcError, RpcUnavailable

#: Any JSON a node may send in place of what it was asked for.
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def height(header: Any) -> int:
    return int(header["number"], 16)


@given(ANY_JSON)
def test_an_answer_of_whatever_shape_is_read_or_unknown_and_never_absent(raw: object) -> None:
    assert isinstance(decode_reply(raw, height), Known | Unknown)


def test_null_and_errors_are_unknown_with_the_nodes_words() -> None:
    error = RpcError(method="eth_getTransactionReceipt", code=-32000, message="transaction indexing is in progress")
    assert isinstance(decode_reply(None, height), Unknown)
    answer = decode_reply(error, height)
    assert isinstance(answer, Unknown)
    assert "transaction indexing is in progress" in answer.why


def test_what_reads_well_is_known() -> None:
    assert decode_reply({"number": "0x10"}, height) == Known(16)


def test_a_reader_may_refuse_what_it_cannot_read() -> None:
    def read(raw: str) -> str:
        raise BadMessage(why=f"{raw} is empty")

    assert isinstance(decode_reply("0x", read), Unknown)


@pytest.mark.parametrize("answer", [Absent("the contract reverted"), Unknown("the node answered null")])
def test_a_value_that_is_not_known_is_asked_for_again_later(answer: Answer[int]) -> None:
    with pytest.raises(RpcUnavailable, match=r"answered null|reverted"):
        value_of(answer, "http://node")


@pytest.mark.parametrize("node", [JsonRpc, Rpc, RpcPool, FakeChain])
def test_what_a_batch_brings_is_no_value_to_the_compiler_until_it_is_read(node: type[JsonRpc]) -> None:
    assert get_type_hints(node.batch)["return"] == list[object]
