"""How often the health check asks the node what hardly ever changes, and when RabbitMQ counts as away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chain.lane import admin
from config.settings import Settings
from pipeline import probes
from pipeline.domain.condition.facts import NoAnswer
from pipeline.probes import CHAIN_SECONDS, Probes
from protocol.errors import RpcError, RpcUnavailable, SluiceError, WrongChain


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
    looking = Probes(nothing, pool, nothing, nothing, nothing, monotonic=lambda: now)

    def ask() -> int:
        looking._chain = looking._slow_facts(hub)
        assert [str(each) for each in looking._chain[1:]] == ["0x01", "account"]
        return len(asked)

    assert [ask(), ask()] == [1, 1]
    now += CHAIN_SECONDS
    assert [ask(), ask()] == [2, 2]
    looking._chain = None
    assert ask() == 3


@pytest.mark.parametrize("takes", [True, False])
@pytest.mark.parametrize("may_recover", [True, False])
def test_whatever_the_management_api_says_the_broker_is_away_only_if_it_takes_no_connection(
    monkeypatch: pytest.MonkeyPatch, *, may_recover: bool, takes: bool
) -> None:
    monkeypatch.setattr(probes, "ask_broker", lambda *_: NoAnswer("it refuses us", "", may_recover=may_recover))
    monkeypatch.setattr(probes, "takes_connections", lambda _: takes)
    nothing: Any = None
    pool: Any = SimpleNamespace(wallet="0x" + "03" * 20)
    found = Probes(Settings(), pool, nothing, nothing, nothing)._broker(running=True)
    assert isinstance(found, NoAnswer)
    assert found.serves is takes


@pytest.mark.parametrize(
    "error",
    [
        RpcUnavailable(what="node", why="away"),
        RpcError(method="eth_call", code=-32000, message="header not found"),
        WrongChain(why="none of a or b is on chain 1", fix="Set SLUICE_RPC_URL to nodes of that chain."),
    ],
)
def test_whatever_the_nodes_say_of_a_waiting_lane_the_report_is_made(
    error: SluiceError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What raised would end the thread that reports, and every request for its report would wait for nothing."""

    def status(_: object) -> None:
        raise error

    store = SimpleNamespace(notes=lambda _: (None, None, ""), in_state=lambda *_: [SimpleNamespace(created_at=0.0)])
    monkeypatch.setattr(probes, "MongoStore", lambda _: store)
    monkeypatch.setattr(probes, "database", lambda _: None)
    monkeypatch.setattr(admin, "status", status)
    nothing: Any = None
    pool: Any = SimpleNamespace(wallet="0x" + "03" * 20)
    looking = Probes(Settings(), pool, nothing, nothing, nothing)
    assert looking._answers({"lane": looking._lane}) == {"lane": None}
