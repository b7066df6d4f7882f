"""Reorganisations on purpose, on an anvil that is played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.rig.reorg import replace_blocks


@dataclass
class Node:
    """Has blocks up to `head` but for `gap`; each reorg leaves the next of `gaps`."""

    gaps: list[set[int]]
    head: int = 100
    gap: set[int] = field(default_factory=set)
    depths: list[int] = field(default_factory=list)
    name: str = "played"

    def call(self, method: str, *params: Any) -> Any:
        if method == "anvil_reorg":
            self.depths.append(params[0])
            self.gap = self.gaps.pop(0)
            # One block is mined meanwhile.
            self.head += 1
            return None
        return hex(self.head)

    def batch(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        return [None if int(params[0], 16) in self.gap else {} for _, params in requests]


def test_blocks_are_replaced_until_no_height_is_without_a_block() -> None:
    node = Node([{98, 99}, {100}, set()])
    replace_blocks(node, 3)
    # 98 to 101, then 100 to 102.
    assert node.depths == [3, 4, 3]
