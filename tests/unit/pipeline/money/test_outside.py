"""Native token that the lane did not move is traced to its block by halving, and to its transactions there."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chain.watch.escrow import Holdings
from pipeline.domain.money.ledger import Mark
from pipeline.flow.money.outside import locate
from protocol.poco.money import EVEN
from protocol.types import BlockNumber, Nonce, Wallet, Wei

ME, OTHER = Wallet("0x" + "aa" * 20), Wallet("0x" + "bb" * 20)
FEE = 21_000


class Past:
    """Blocks with at most one transaction that concerns the wallet; `pruned`: up to there balances are not kept."""

    wallet = ME

    def __init__(self, blocks: Sequence[tuple[str, int]], pruned: int = -1) -> None:
        self.blocks, self.pruned, self.asked = list(blocks), pruned, 0

    @property
    def rpc(self) -> Any:
        return SimpleNamespace(name="node", call=self._block, batch=lambda asked: [self._receipt() for _ in asked])

    def mark(self, at: int) -> Mark:
        balance = 10**9
        for kind, value in self.blocks[: at + 1]:
            balance += value if kind in ("gift", "mined") else -value - FEE if kind == "own" else 0
        count = sum(kind == "own" for kind, _ in self.blocks[: at + 1])
        return Mark(BlockNumber(at), Wei(balance), Nonce(count))

    def holdings(self, at: Sequence[BlockNumber]) -> list[Holdings | None]:
        self.asked += 1
        marks = [self.mark(number) for number in at]
        return [None if mark.block <= self.pruned else Holdings(EVEN, mark.balance, mark.count) for mark in marks]

    def _block(self, _: str, number: str, __: bool) -> dict[str, Any]:
        kind, value = self.blocks[int(number, 16)]
        giver, getter = (ME, OTHER) if kind == "own" else (OTHER, ME)
        nonce = self.mark(int(number, 16)).count - 1 if kind == "own" else 7
        made = {"from": giver, "to": getter, "value": hex(value), "nonce": hex(nonce), "hash": f"0x{int(number, 16):x}"}
        return {"transactions": [made] if kind in ("own", "gift") else []}

    @staticmethod
    def _receipt() -> dict[str, str]:
        return {"gasUsed": hex(FEE), "effectiveGasPrice": "0x1", "status": "0x1"}


gas: Any = SimpleNamespace(between=lambda *_: [])
life = st.lists(st.tuples(st.sampled_from(["", "", "gift", "own", "mined"]), st.integers(1, 1000)), min_size=2)


@given(life)
def test_every_wei_is_found_in_its_block(blocks: list[tuple[str, int]]) -> None:
    past: Any = Past([("", 0), *blocks])
    last = len(blocks)
    found = locate(past, gas, past.mark(0), past.mark(last))
    assert sum(each.wei for each in found) == past.mark(last).balance - past.mark(0).balance
    for each in found:
        assert each.until - each.after == 1
        kind, _ = past.blocks[each.until]
        assert (each.explained, each.transactions) == (
            (True, (f"0x{each.until:x}",)) if kind in ("gift", "own") else (False, ())
        )


def test_what_the_node_does_not_keep_is_told_with_the_blocks_between_which_it_was() -> None:
    past: Any = Past([("", 0), ("gift", 5), *[("", 0)] * 30, ("gift", 7), ("", 0)], pruned=20)
    found = locate(past, gas, past.mark(0), past.mark(33))
    assert [(each.after, each.until, each.wei) for each in found] == [(0, 33, 12)]
    assert not found[0].explained
    assert found[0].received
