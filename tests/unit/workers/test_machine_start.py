"""What a machine waits for at its start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from protocol.errors import PoolUnavailable, RpcUnavailable, WrongChain
from workers import machine


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))


@pytest.mark.parametrize(
    "away", [PoolUnavailable(what="pool", why="away"), RpcUnavailable(what="node", why="it is still reading the chain")]
)
def test_a_pool_or_a_node_that_is_still_starting_is_asked_until_it_answers(away: Exception) -> None:
    answers: list[object] = [away, away, "answer"]

    def ask() -> object:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    assert machine._until_answered(ask) == "answer"


def test_a_node_of_another_chain_is_not_asked_again() -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        raise WrongChain(why="it is on chain 2", fix="Name another.")

    with pytest.raises(WrongChain):
        machine._until_answered(ask)
    assert len(asked) == 1
