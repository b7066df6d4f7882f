"""How often the health check asks the node what hardly ever changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pipeline.probes import CHAIN_SECONDS, Probes


def test_chain_owner_and_stake_are_asked_again_after_a_while_and_after_a_node_that_did_not_answer() -> None:
    asked: list[object] = []
    now = 100.0
    hub: Any = SimpleNamespace(
        check_chain=asked.append,
        workerpool=lambda _: SimpleNamespace(owner="0x01"),
        account=lambda _: "account",
    )
    nothing: Any = None
    pool: Any = SimpleNamespace(workerpool="0x02", wallet="0x03")
    probes = Probes(nothing, pool, nothing, nothing, nothing, monotonic=lambda: now)

    def ask() -> int:
        probes._chain = probes._slow_facts(hub)
        assert [str(each) for each in probes._chain[1:]] == ["0x01", "account"]
        return len(asked)

    assert [ask(), ask()] == [1, 1]
    now += CHAIN_SECONDS
    assert [ask(), ask()] == [2, 2]
    probes._chain = None
    assert ask() == 3
