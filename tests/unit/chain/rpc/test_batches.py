"""Batches that a node limits, in whatever way it says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.adapters import BaseAdapter
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import ReadTimeoutError

from chain.rpc.batches import CALM, FIRST, SLOW_LEAST, BatchSize
from chain.rpc.client import Rpc
from protocol.errors import RpcError, RpcUnavailable
from tests.faulty.answering import Answering

Calls = list[dict[str, Any]]


def right(calls: Calls) -> list[dict[str, Any]]:
    return [{"jsonrpc": "2.0", "id": call["id"], "result": call["params"][0]} for call in calls]


def error(calls_id: object, code: int = -32000, message: str = "batch limit exceeded") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": calls_id, "error": {"code": code, "message": message}}


def cut(_: Calls, __: int) -> httpx.Response:
    raise httpx.ReadError("connection reset by peer")


#: How nodes refuse a batch that is too long: what Erigon, geth, Nethermind, balancers and hosted nodes do, and worse.
REFUSALS: dict[str, Callable[[Calls, int], httpx.Response]] = {
    "one error for all": lambda calls, _: httpx.Response(200, json=error(None)),
    "one error for all, code 31": lambda calls, _: httpx.Response(200, json=error(None, 31, "Batch of more than 3")),
    "an error for the first alone": lambda calls, _: httpx.Response(200, json=[error(calls[0]["id"], -32600)]),
    "an error without id in a list": lambda calls, _: httpx.Response(200, json=[error(None)]),
    "an error for each": lambda calls, _: httpx.Response(200, json=[error(call["id"], -32005) for call in calls]),
    "the rest left out": lambda calls, limit: httpx.Response(200, json=right(calls[:limit])),
    "the rest too large": lambda calls, limit: httpx.Response(
        200, json=right(calls[:limit]) + [error(call["id"], -32003) for call in calls[limit:]]
    ),
    "too large": lambda calls, _: httpx.Response(413, text="<html>Request Entity Too Large</html>"),
    "bad request": lambda calls, _: httpx.Response(400, json={"message": "batch too big"}),
    "too many": lambda calls, _: httpx.Response(429, json={"error": "slow down"}),
    "server error": lambda calls, _: httpx.Response(500, text=""),
    "error with status": lambda calls, _: httpx.Response(403, json=error(None)),
    "an empty list": lambda calls, _: httpx.Response(200, json=[]),
    "connection cut": cut,
}


class Node:
    """Takes `limit` requests at once; `poison` is a call it fails at with the whole exchange, `lists`: takes lists."""

    def __init__(self, limit: int, refusal: str, *, poison: str | None = None, lists: bool = True) -> None:
        self.limit, self.poison, self.lists = limit, poison, lists
        self.refuse = REFUSALS[refusal]
        self.sizes: list[int] = []
        self.rpc = Rpc("http://node", adapter=Answering(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        calls = body if isinstance(body, list) else [body]
        self.sizes.append(len(calls))
        if isinstance(body, list) and (len(calls) > self.limit or not self.lists):
            return self.refuse(calls, self.limit)
        if any(call["params"][0] == self.poison for call in calls):
            return httpx.Response(500, text="out of memory")
        return httpx.Response(200, json=right(calls) if isinstance(body, list) else right(calls)[0])

    def ask(self, number: int) -> list[Any]:
        return self.rpc.batch([("eth_getBlockByNumber", (hex(n), False)) for n in range(number)])


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.rpc.client._PAUSE", 0.0)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("limit", [100, 20, 3, 1])
def test_a_batch_is_answered_whatever_the_nodes_limit_and_its_way_to_say_so(refusal: str, limit: int) -> None:
    node, number = Node(limit, refusal), min(FIRST + 50, 20 * limit)
    assert node.ask(number) == [hex(n) for n in range(number)]
    node.sizes.clear()
    assert node.ask(limit) == [hex(n) for n in range(limit)]
    assert len(node.sizes) <= 2, "what the node takes is remembered"


@given(st.integers(1, 150), st.integers(1, 120), st.sampled_from(list(REFUSALS)))
def test_every_call_of_any_batch_gets_its_own_answer(number: int, limit: int, refusal: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chain.rpc.client._PAUSE", 0.0)
        assert Node(limit, refusal).ask(number) == [hex(n) for n in range(number)]


@pytest.mark.parametrize("refusal", ["one error for all", "too large", "bad request", "connection cut"])
def test_a_node_without_batches_is_asked_one_by_one(refusal: str) -> None:
    node = Node(0, refusal, lists=False)
    assert node.ask(5) == [hex(n) for n in range(5)]
    node.sizes.clear()
    assert node.ask(5) == [hex(n) for n in range(5)]
    assert node.sizes == [1] * 5
    for _ in range(3):
        assert node.ask(CALM) == [hex(n) for n in range(CALM)]


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_one_call_that_the_node_breaks_at_does_not_keep_the_others_from_their_answers(place: int) -> None:
    answers = Node(100, "server error", poison=hex(place)).ask(100)
    assert isinstance(answers.pop(place), RpcError)
    assert answers == [hex(n) for n in range(100) if n != place]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_node_that_fails_at_single_calls_too_has_another_trouble_and_its_size_stays(status: int) -> None:
    well = Node(FIRST, "server error")
    limit, well.limit = well.limit, -1
    well.refuse = lambda calls, _: httpx.Response(status, text="busy")
    well.lists = False
    real = well.rpc._exchange

    def busy(requests: Any, *, as_list: bool) -> Any:
        return real(requests, as_list=True)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RpcUnavailable, match=str(status)):
        patch.setattr(well.rpc, "_exchange", busy)
        well.ask(FIRST)
    assert len(well.sizes) <= 16, "a node that is down is not asked for ever"
    well.limit, well.lists = limit, True
    well.sizes.clear()
    assert len(well.ask(FIRST)) == FIRST
    assert well.sizes == [FIRST]


def test_a_refusal_of_all_by_the_contract_is_an_answer() -> None:
    node = Node(FIRST, "server error")
    node.rpc = Rpc("http://node", adapter=Answering(lambda request: httpx.Response(
        200, json=[error(call["id"], 3, "execution reverted") for call in json.loads(request.content)])))  # fmt: skip
    answers = node.rpc.batch([("eth_call", ("0x1",)), ("eth_call", ("0x2",))])
    assert [isinstance(answer, RpcError) and answer.message for answer in answers] == ["execution reverted"] * 2


@given(st.lists(st.sampled_from(["worked", "failed", "slow"]), max_size=400), st.integers(1, FIRST))
def test_a_size_stays_between_one_and_the_first_and_grows_back(story: list[str], limit: int) -> None:
    size = BatchSize()
    for event in story:
        if event == "failed" and size.requests > 1:
            size = size.worked(size.requests // 2, failed=size.requests)
        elif event == "slow":
            size = size.timed_out(size.requests)
        else:
            size = size.worked(size.requests)
        assert 1 <= size.requests <= FIRST


def test_a_smaller_size_is_left_again_when_all_goes_well_for_long() -> None:
    size = BatchSize().worked(FIRST // 2, failed=FIRST)
    for _ in range(CALM):
        assert size.requests == FIRST // 2
        size = size.worked(FIRST // 2)
    assert size.requests == FIRST


def test_time_outs_do_not_make_batches_tiny() -> None:
    size = BatchSize()
    for _ in range(20):
        size = size.timed_out(size.requests)
    assert size.requests == SLOW_LEAST


class StopsInTheMiddle(BaseAdapter):
    """A node that begins its answers and never ends them."""

    asked = 0

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        def stream(*_: object, **__: object) -> Iterator[bytes]:
            yield b"[{"
            raise ReadTimeoutError(HTTPConnectionPool("node"), "/", "Read timed out.")

        self.asked += 1
        response = requests.Response()
        response.status_code, response.request, response.url = 200, request, str(request.url)
        response.raw = SimpleNamespace(stream=stream, close=lambda: None, release_conn=lambda: None)
        return response

    def close(self) -> None:
        """Nothing to close."""


def test_a_node_that_stops_in_the_middle_of_an_answer_is_slow_and_not_asked_the_same_again_at_once() -> None:
    node = StopsInTheMiddle()
    with Rpc("http://node", timeout=5.0, adapter=node) as rpc, pytest.raises(RpcUnavailable):
        rpc.batch([("eth_call", ({"to": "0x"}, "latest"))] * 10)
    assert node.asked == 1
