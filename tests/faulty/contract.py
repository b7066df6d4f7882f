"""A PoCo hub in memory: what an honest node answers to the views of deals, apps, datasets and categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eth_abi.abi import encode

from chain.contracts import calls
from chain.contracts.abi import SELECTOR_BYTES, Function
from chain.testing import FakeChain
from protocol.errors import RpcError
from protocol.types import ZERO_ADDRESS, Contract, DealId
from tests.faulty.answers import Call

OWNER = "0x" + "11" * 20
APP, DATASET, POOL = (Contract("0x" + digit * 40) for digit in "abc")
DEAL = DealId("0x" + "d1" * 32)
_WORD = bytes(32)
#: A dataset's address as the SDK stores `/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG`.
BINARY = bytes.fromhex("a5032212209d6c2be50f706953479ab9df2ce3edca90b68053c00b3004b7f0accbe1e8eedf")
_VIEWS: tuple[Function, ...] = (calls.VIEW_DEAL, calls.VIEW_APP, calls.VIEW_DATASET, calls.VIEW_CATEGORY)


def deal_fields(*, trust: int = 1, first: int = 0, size: int = 2, params: str = "{}") -> tuple[Any, ...]:
    """viewDeal's record."""
    resources = ((APP, OWNER, 5), (DATASET, OWNER, 1), (POOL, OWNER, 100))
    people = (OWNER, OWNER, ZERO_ADDRESS)
    return (*resources, trust, 0, _WORD, *people, params, 1_700_000_000, first, size, 30, 10, OWNER)


_NO_DEAL = (
    *([(ZERO_ADDRESS, ZERO_ADDRESS, 0)] * 3), 0, 0, _WORD, *([ZERO_ADDRESS] * 3), "", 0, 0, 0, 0, 0, ZERO_ADDRESS,
)  # fmt: skip


class FakeHub:
    """The hub on a FakeChain; `deals` by id, each as viewDeal's fields."""

    def __init__(self, chain: FakeChain, deals: Mapping[DealId, tuple[Any, ...]]) -> None:
        self._chain = chain
        self._deals = deals

    def ask(self, asked: Sequence[Call]) -> list[dict[str, Any]]:
        """As an honest node."""
        return [{"jsonrpc": "2.0", "id": call["id"], **self._answer(call)} for call in asked]

    def _answer(self, call: Call) -> dict[str, Any]:
        if call["method"] != "eth_call":
            (answer,) = self._chain.batch([(call["method"], call["params"])])
            if isinstance(answer, RpcError):
                return {"error": {"code": answer.code, "message": answer.message}}
            return {"result": answer}
        data = bytes.fromhex(call["params"][0]["data"][2:])
        function = next(view for view in _VIEWS if view.selector == data[:SELECTOR_BYTES])
        record: Any
        match function.name:
            case "viewDeal":
                record = self._deals.get(DealId("0x" + data[SELECTOR_BYTES:].hex()), _NO_DEAL)
            case "viewApp":
                record = (OWNER, "app", "DOCKER", b"hello:1", _WORD, b"")
            case "viewDataset":
                record = (OWNER, "dataset", BINARY, _WORD)
            case _:
                record = ("XS", "extra small", 60)
        return {"result": "0x" + encode(function.outputs, [record]).hex()}
