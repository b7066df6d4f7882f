"""Faults of a JSON-RPC node, each a function from one HTTP exchange to its reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Call = dict[str, Any]
#: The honest node: the answer objects to these calls, in order.
Honest = Callable[[Sequence[Call]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back over HTTP: after `delay` seconds; `cut`: the connection is closed in place of an answer."""

    status: int = 200
    body: bytes = b""
    delay: float = 0.0
    cut: bool = False


#: One exchange: the calls, whether they came as a list, the honest node.
Fault = Callable[[Sequence[Call], bool, Honest], Reply]

#: Errors of geth, Erigon, Nethermind, Besu, bor and providers for things that exist, in their words.
ERRORS: tuple[tuple[Any, Any], ...] = (
    (-32000, "header not found"),
    (-32000, "missing trie node 4f1c (path ) state is not available"),
    (-32000, "transaction indexing is in progress"),
    (-32000, "unknown block"),
    (-32001, "resource not found"),
    (-32005, "limit exceeded"),
    (-32005, "daily request count exceeded, request rate limited"),
    (-32016, "rate limit exceeded"),
    (-32097, "Timeout on the free tier"),
    (-32600, "invalid request"),
    (-32601, "the method does not exist/is not available"),
    (-32603, "Internal error"),
    (429, "Your app has exceeded its compute units per second capacity"),
    (-32000, "execution aborted (timeout = 5s)"),
    (-32000, "pruned history unavailable"),
    ("-32000", None),
    (None, {"nested": "message"}),
)


def honest(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
    """No fault at all."""
    return _json(ask(calls), as_list)


def results(result: Any, methods: frozenset[str] | None = None) -> Fault:
    """`result` in place of what these methods (None: all) answer."""

    def fault(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
        answers = [
            {"jsonrpc": "2.0", "id": call["id"], "result": result}
            if methods is None or call["method"] in methods
            else answer
            for call, answer in zip(calls, ask(calls), strict=True)
        ]
        return _json(answers, as_list)

    return fault


def errors(code: Any, message: Any, every: int = 1) -> Fault:
    """An error for every n-th call."""

    def fault(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
        error = {"code": code, "message": message}
        answers = [
            answer if at % every else {"jsonrpc": "2.0", "id": answer["id"], "error": error}
            for at, answer in enumerate(ask(calls))
        ]
        return _json(answers, as_list)

    return fault


def status(code: int, body: bytes = b"<html>busy</html>") -> Fault:
    """An HTTP status of a gateway or balancer in front of the node."""
    return lambda _calls, _as_list, _ask: Reply(code, body)


def raw(body: bytes) -> Fault:
    """This body, whatever was asked."""
    return lambda _calls, _as_list, _ask: Reply(200, body)


def cut(_calls: Sequence[Call], _as_list: bool, _ask: Honest) -> Reply:
    """The connection closed."""
    return Reply(cut=True)


def truncated(share: float) -> Fault:
    """Only the first part of the body."""

    def fault(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
        body = _json(ask(calls), as_list).body
        return Reply(200, body[: int(len(body) * share)])

    return fault


def shortened(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
    """Results cut in the middle: half of a hex string, half of a list."""
    answers = [{**answer, "result": _half(answer.get("result"))} for answer in ask(calls)]
    return _json(answers, as_list)


def ids(change: Callable[[list[Any]], list[Any]]) -> Fault:
    """The honest answers under other ids than those that were asked."""

    def fault(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
        answers = ask(calls)
        changed = change([answer["id"] for answer in answers])
        return _json([{**answer, "id": one} for answer, one in zip(answers, changed, strict=True)], as_list)

    return fault


def backwards(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
    """A batch answered in the opposite order, which is allowed."""
    return _json(list(reversed(ask(calls))), as_list)


def batches(limit: int, answer: Fault) -> Fault:
    """`answer` to lists of more than `limit` calls."""
    return lambda calls, as_list, ask: (answer if as_list and len(calls) > limit else honest)(calls, as_list, ask)


def one_error(code: int, message: str) -> Fault:
    """One error without id for all calls."""
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}).encode()
    return raw(body)


def behind(blocks: int) -> Fault:
    """The node as it was so many blocks ago: a lower head, null for newer blocks, errors for calls at them."""

    def fault(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
        (head,) = ask([{"jsonrpc": "2.0", "id": 0, "method": "eth_blockNumber", "params": []}])
        top = max(0, int(head["result"], 16) - blocks)
        known = [call for call in calls if not _beyond(top, call)]
        answers = iter(ask([_pinned(top, call) for call in known]) if known else [])
        return _json(
            [_refused(call) if _beyond(top, call) else _as_of(top, call, next(answers)) for call in calls], as_list
        )

    return fault


def slow(seconds: float) -> Fault:
    """The honest answers, late."""

    def fault(calls: Sequence[Call], as_list: bool, ask: Honest) -> Reply:
        return Reply(200, _json(ask(calls), as_list).body, delay=seconds)

    return fault


def _block_of(call: Call) -> Any:
    """The block that a call is about: a number, a tag or None."""
    method, params = call["method"], call["params"]
    if method == "eth_getLogs":
        return params[0].get("blockHash") or params[0].get("toBlock", "latest")
    if method in ("eth_getBlockByNumber", "eth_getBlockReceipts"):
        return params[0]
    return params[-1] if params else None


def _beyond(top: int, call: Call) -> bool:
    at = _block_of(call)
    return isinstance(at, str) and at.startswith("0x") and len(at) < 18 and int(at, 16) > top


def _refused(call: Call) -> dict[str, Any]:
    """What a node answers of a block that it has not."""
    if call["method"] in ("eth_getBlockByNumber", "eth_getBlockReceipts"):
        return {"jsonrpc": "2.0", "id": call["id"], "result": None}
    return {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32000, "message": "header not found"}}


def _pinned(top: int, call: Call) -> Call:
    """The call with the block that such a node takes for the latest."""
    if _block_of(call) != "latest" or not call["params"]:
        return call
    method, params = call["method"], call["params"]
    if method == "eth_getLogs":
        return {**call, "params": [{**params[0], "toBlock": hex(top)}]}
    if method in ("eth_getBlockByNumber", "eth_getBlockReceipts"):
        return {**call, "params": [hex(top), *params[1:]]}
    return {**call, "params": [*params[:-1], hex(top)]}


def _as_of(top: int, call: Call, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without what came after block `top`."""
    if call["method"] == "eth_blockNumber":
        return {**answer, "result": hex(top)}
    found = answer.get("result")
    if isinstance(found, dict) and isinstance(found.get("blockNumber"), str) and int(found["blockNumber"], 16) > top:
        if call["method"] == "eth_getTransactionReceipt":
            return {**answer, "result": None}
        if call["method"] == "eth_getTransactionByHash":
            return {**answer, "result": {**found, "blockNumber": None, "blockHash": None, "transactionIndex": None}}
    return answer


def _half(result: Any) -> Any:
    if isinstance(result, str):
        return result[: max(2, len(result) // 2)]
    if isinstance(result, list):
        return result[: len(result) // 2]
    if isinstance(result, dict):
        return dict(list(result.items())[: len(result) // 2])
    return result


def _json(answers: Sequence[dict[str, Any]], as_list: bool) -> Reply:
    return Reply(200, json.dumps(list(answers) if as_list else answers[0]).encode())
