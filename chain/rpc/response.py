"""What a node's HTTP response says to the calls of one JSON-RPC exchange. Pure: `chain.rpc.client` sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import from_json

from chain.rpc.answers import Reply
from protocol.errors import RpcError

#: JSON-RPC's own code for an answer that is not one.
_INTERNAL = -32603
#: Our code for a call that the node left out of a batch.
_UNANSWERED = -32099
#: Codes of calls that a batch had no space for: left out, geth's "response too large" and "request timed out".
_CUT_SHORT = frozenset({_UNANSWERED, -32003, -32002})
#: HTTP status of a node that is asked too often, and the code of such an error: some providers' own is one of many.
_TOO_MANY = 429
#: Most characters of an answer of another shape in a message, and of a node's own words: they are logged, kept and
#: compared, and an answer may have as many bytes as it likes.
_SHOWN, _WORDS = 200, 2000

#: Whether a result can be the answer to a call: method, parameters, result (`chain.rpc.shapes.fits`).
Fits = Callable[[str, Sequence[object], object], bool]


class NoAnswer(Exception):
    """The response answers nothing of what was asked; the message says what it is. Caught by `chain.rpc.client`."""


def anything_fits(method: str, params: Sequence[object], result: object) -> bool:  # noqa: ARG001 # as Fits
    """Always True: the `Fits` of a client that takes results of any shape."""
    return True


def cut_short(answer: object) -> bool:
    """Whether the node left this call out of a batch's answers, or had no space for it."""
    return isinstance(answer, RpcError) and answer.code in _CUT_SHORT


def wholly_failed(answers: Sequence[Reply]) -> bool:
    """Whether all answers are the node's errors: none is a result, or a contract's revert, which is as good as one."""
    return all(isinstance(answer, RpcError) and not reverted(answer) for answer in answers)


def reverted(error: RpcError) -> bool:
    """Whether the error is a contract's own revert of an eth_call, and no failure of the node.

    geth, Erigon, Besu, Nethermind and anvil say "execution reverted"; OpenEthereum "VM execution error" with the data
    "Reverted 0x…". Providers put objects of their own into `data` of any error.
    """
    detail = error.data.lower() if isinstance(error.data, str) else ""
    return "revert" in error.message.lower() or "revert" in detail or detail.startswith("0x")


def read_answers(status: int, content: bytes, calls: Sequence[dict[str, Any]], fits: Fits) -> list[Reply]:
    """One result or RpcError per call, matched by id, since a node may answer a batch in any order.

    Raises NoAnswer if the node answered nothing, or all with one error.
    """
    try:
        # Bounds how deep arrays nest, where json.loads goes down to Python's recursion limit; and takes half its time.
        body = from_json(content)
    except ValueError as error:
        raise NoAnswer(f"HTTP {status} without JSON") from error
    items = body if isinstance(body, list) else [body]
    items = [item for item in items if isinstance(item, dict) and ("result" in item or "error" in item)]
    by_id: dict[str, dict[str, Any]] = {}
    for item in items:
        # Two answers to one call contradict each other unless they are the same: then nothing follows.
        same = by_id.setdefault(str(item.get("id")), item) == item
        by_id[str(item.get("id"))] = item if same else {}
    answered = [by_id.get(str(call["id"]), {}) for call in calls]
    if not any(answered):
        if len(items) == 1 and items[0].get("error") is not None and (len(calls) == 1 or isinstance(body, dict)):
            # One error for all, or for the only one, without saying for which.
            answered = [items[0]] * len(calls)
        else:
            raise NoAnswer(f"HTTP {status} without an answer to what was asked")
    return [_read_result(status, item, call, fits) for item, call in zip(answered, calls, strict=True)]


def _read_result(status: int, answer: dict[str, Any], call: dict[str, Any], fits: Fits) -> Reply:
    """The result of one call, or its RpcError; a result of another shape than expected is an error."""
    error = answer.get("error")
    method = call["method"]
    if error is None and "result" in answer:
        result = answer["result"]
        if fits(method, call["params"], result):
            return result
        return node_error(method, f"the node's answer has another shape than expected: {json.dumps(result)[:_SHOWN]}")
    if not answer:
        return RpcError(method=method, code=_UNANSWERED, message="the node left this call unanswered")
    if not isinstance(error, dict):
        error = {"message": str(error)[:_SHOWN]}
    try:
        code = int(error.get("code", _INTERNAL))
    except (TypeError, ValueError, OverflowError):
        code = _INTERNAL
    if status == _TOO_MANY and code not in _CUT_SHORT:
        code = _TOO_MANY
    words = str(error.get("message") or "")[:_WORDS]
    return RpcError(method=method, code=code, message=words, data=error.get("data"))


def node_error(method: str, message: str) -> RpcError:
    """An RpcError for a node's failure that came without a JSON-RPC error of its own."""
    return RpcError(method=method, code=_INTERNAL, message=message)
