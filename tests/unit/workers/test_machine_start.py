"""What a machine waits for at its start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.errors import BadSetting, NodesOfOtherChain, PoolUnavailable, RpcUnavailable, WrongChain
from workers import machine, votes_first
from workers.task.unfinished import Unfinished


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


@pytest.mark.parametrize("kind", [WrongChain, NodesOfOtherChain])
def test_a_node_of_another_chain_is_not_asked_again(kind: type[WrongChain]) -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        raise kind(why="it is on chain 2", fix="Name another.")

    with pytest.raises(WrongChain):
        machine._until_answered(ask)
    assert len(asked) == 1


@pytest.mark.parametrize("left", [Unfinished(), Unfinished(apps=1, unpaid=1)])
def test_a_machine_that_may_not_start_ends_at_once_if_no_vote_waits(left: Unfinished) -> None:
    taken = []

    @contextmanager
    def alone() -> Iterator[None]:
        taken.append(1)
        yield

    refusal, nothing = BadSetting(name="SLUICE_DOCKER_HOST", why="refused", fix="Correct it."), SimpleNamespace()
    own: Any = nothing
    with pytest.raises(BadSetting, match="Correct it"):
        votes_first.refuse(own, refusal, left, alone())
    assert taken == []
