"""What is nested without end is refused by its depth. At Python's recursion limit a finalizer that runs meanwhile
cannot even be called, and the error is nobody's.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chain.rpc.response import NoAnswer, anything_fits, read_answers
from protocol.errors import BadMessage
from workers.data import registry
from workers.sandbox.images.image_store import read_config

CALL = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}


def _why(read: Callable[[], object], raised: type[Exception]) -> BaseException | None:
    with pytest.raises(raised) as found:
        read()
    return found.value.__cause__


@pytest.mark.parametrize("body", [b"[" * 10_000, b'{"a":' * 10_000, b"[" * 250 + b"]" * 250])
def test_what_is_nested_without_end_never_reaches_the_recursion_limit(body: bytes) -> None:
    assert type(_why(lambda: read_answers(200, body, [CALL], anything_fits), NoAnswer)) is ValueError
    assert type(_why(lambda: read_config(body), BadMessage)) is ValueError
    assert registry._kind(body, "as its header says") == "as its header says"
    with pytest.raises(ValueError, match="recursion"):
        registry._read_manifest(body, "sha256:" + "0" * 64)
