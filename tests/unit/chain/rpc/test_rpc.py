"""The JSON-RPC client over HTTP: batches, errors, retries and limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from chain.rpc.client import Rpc, redacted
from protocol.errors import RpcError, RpcUnavailable
from tests.faulty.answering import Answering

URL = "http://user:secret@node.example:8545/v3/key?token=secret"


class Node:
    """Answers HTTP with the given responses, and keeps every request body."""

    def __init__(self, *answers: Callable[[Any], httpx.Response] | Exception) -> None:
        self.answers = list(answers)
        self.bodies: list[Any] = []
        self.rpc = Rpc(URL, timeout=1.0, adapter=Answering(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(request.content))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(self.bodies[-1])


def echo(body: Any) -> httpx.Response:
    """Each call answered with its own method name."""
    calls = body if isinstance(body, list) else [body]
    answers = [{"jsonrpc": "2.0", "id": call["id"], "result": call["method"]} for call in calls]
    return httpx.Response(200, json=answers if isinstance(body, list) else answers[0])


def backwards(body: Any) -> httpx.Response:
    """As `echo`, the last call answered first."""
    return httpx.Response(200, json=list(reversed(echo(body).json())))


def revert(body: Any) -> httpx.Response:
    error = {"code": 3, "message": "execution reverted", "data": "0x1234"}
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": body["id"], "error": error})


def test_a_call_carries_method_and_parameters_and_brings_the_result() -> None:
    node = Node(echo)

    assert node.rpc.call("eth_chainId", "0x1", {"a": 1}) == "eth_chainId"
    assert node.bodies[0]["params"] == ["0x1", {"a": 1}]


def test_an_error_of_the_node_keeps_its_code_words_and_data() -> None:
    with pytest.raises(RpcError) as caught:
        Node(revert).rpc.call("eth_call")

    assert (caught.value.code, caught.value.message, caught.value.data) == (3, "execution reverted", "0x1234")


def test_calls_are_counted_by_the_node_s_host_and_port_and_never_with_a_key() -> None:
    def counted() -> dict[tuple[str, ...], float]:
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for metric in REGISTRY.collect()
            for sample in metric.samples
            if sample.name in ("sluice_rpc_requests_total", "sluice_rpc_seconds_count")
        }

    called = ("sluice_rpc_requests_total", *sorted(("eth_counted", "node.example:8545", "ok")))
    timed = ("sluice_rpc_seconds_count", "node.example:8545")
    before = counted()
    Node(echo).rpc.call("eth_counted")
    after = counted()
    assert after[called] - before.get(called, 0) == 1
    assert after[timed] - before.get(timed, 0) == 1
    assert not any("secret" in label or "key" in label or "v3" in label for labels in after for label in labels)


def test_answers_of_a_batch_are_matched_by_id_not_by_order() -> None:
    assert Node(backwards).rpc.batch([("eth_a", ()), ("eth_b", ())]) == ["eth_a", "eth_b"]


def test_one_failed_call_of_a_batch_stands_in_its_place() -> None:
    def second_fails(body: Any) -> httpx.Response:
        answers = echo(body).json()
        answers[1] = {"jsonrpc": "2.0", "id": body[1]["id"], "error": {"code": -32000, "message": "no"}}
        return httpx.Response(200, json=answers)

    first, second, third = Node(second_fails).rpc.batch([("a", ()), ("b", ()), ("c", ())])

    assert (first, third) == ("a", "c")
    assert isinstance(second, RpcError)
    assert second.fields["method"] == "b"


def test_a_call_that_the_node_leaves_out_of_a_batch_is_an_error() -> None:
    def forgets(body: Any) -> httpx.Response:
        return httpx.Response(200, json=echo(body).json()[:1])

    answers = Node(forgets).rpc.batch([("a", ()), ("b", ())])

    assert answers[0] == "a"
    assert isinstance(answers[1], RpcError)


def test_one_error_for_a_whole_batch_is_the_answer_to_each_call() -> None:
    def refuses(_: Any) -> httpx.Response:
        error = {"code": -32600, "message": "batch too large"}
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": None, "error": error})

    answers = Node(refuses).rpc.batch([("a", ()), ("b", ())])

    assert [isinstance(answer, RpcError) and answer.message for answer in answers] == ["batch too large"] * 2


def test_a_long_batch_goes_out_in_several_exchanges_and_comes_back_whole() -> None:
    node = Node(echo)

    answers = node.rpc.batch([(f"m{n}", ()) for n in range(450)])

    assert answers == [f"m{n}" for n in range(450)]
    assert [len(body) for body in node.bodies] == [200, 200, 50]


def test_nothing_to_ask_asks_nothing() -> None:
    node = Node(echo)

    assert node.rpc.batch([]) == []
    assert node.bodies == []


def test_a_read_is_asked_again_when_the_connection_was_cut() -> None:
    node = Node(httpx.ReadError("cut"), echo)

    assert node.rpc.call("eth_blockNumber") == "eth_blockNumber"
    assert len(node.bodies) == 2


def test_a_transaction_is_never_sent_twice() -> None:
    node = Node(httpx.ReadError("cut"), echo)

    with pytest.raises(RpcUnavailable):
        node.rpc.call("eth_sendRawTransaction", "0x00")
    assert len(node.bodies) == 1


def test_a_batch_with_one_transaction_in_it_is_never_sent_twice() -> None:
    node = Node(httpx.ConnectError("refused"), echo)

    with pytest.raises(RpcUnavailable):
        node.rpc.batch([("eth_blockNumber", ()), ("eth_sendRawTransaction", ("0x00",))])
    assert len(node.bodies) == 1


def test_a_time_out_is_not_waited_for_twice() -> None:
    node = Node(httpx.ReadTimeout("slow"), echo)

    with pytest.raises(RpcUnavailable, match="no answer within 1 s"):
        node.rpc.call("eth_blockNumber")
    assert len(node.bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(429, json={"message": "slow down"}),
        httpx.Response(200, json="what"),
    ],
)
def test_what_is_not_json_rpc_means_the_node_does_not_answer(answer: httpx.Response) -> None:
    with pytest.raises(RpcUnavailable):
        Node(lambda _: answer).rpc.call("eth_blockNumber")


def test_an_error_sent_with_an_http_error_status_is_still_the_nodes_answer() -> None:
    def bad_request(body: Any) -> httpx.Response:
        return httpx.Response(400, json=revert(body).json())

    with pytest.raises(RpcError, match="execution reverted"):
        Node(bad_request).rpc.call("eth_call")


@pytest.mark.parametrize("error", [{"code": -32000, "message": "slow down"}, "slow down"])
def test_an_error_sent_with_http_status_429_says_so_by_its_code(error: object) -> None:
    def slow_down(body: Any) -> httpx.Response:
        return httpx.Response(429, json={"jsonrpc": "2.0", "id": body["id"], "error": error})

    with pytest.raises(RpcError, match="slow down") as caught:
        Node(slow_down).rpc.call("eth_call")
    assert caught.value.code == 429


def test_of_a_nodes_words_only_so_many_are_kept() -> None:
    """They are logged and stored while a lane waits: a node that never stops would fill the disk."""

    def endless(body: Any) -> httpx.Response:
        return httpx.Response(200, json={"id": body["id"], "error": {"code": -32000, "message": "no! " * 10**6}})

    with pytest.raises(RpcError) as caught:
        Node(endless).rpc.call("eth_call")
    assert len(caught.value.message) == 2000


def test_keys_in_a_nodes_address_reach_no_message() -> None:
    rpc = Node(httpx.ConnectError("refused")).rpc

    with pytest.raises(RpcUnavailable) as caught:
        rpc.call("eth_sendRawTransaction")

    for text in (str(caught.value), repr(rpc), rpc.name):
        assert "secret" not in text
        assert "key" not in text
    assert redacted(URL) == "http://node.example:8545"
