"""RabbitMQ's management API where it is a cluster: another node is asked when one does not answer."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from pipeline.broker import admin as broker_admin
from pipeline.broker.admin import BrokerAdmin
from protocol.errors import BrokerUnavailable


class Nodes:
    """Three nodes, of which those in `away` do not answer. `asked`: by name, in order.

    `meanwhile`: what other threads do while the next requests wait for a node, one for each.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away: set[str] = set()
        self.meanwhile: list[Callable[[], object]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What a node answers, as a transport of httpx asks for it."""
        self.asked.append(request.url.host)
        if self.meanwhile:
            self.meanwhile.pop()()
        if request.url.host in self.away:
            raise httpx.ConnectTimeout("timed out")
        return httpx.Response(200, json={"name": request.url.host, "tags": "administrator"})


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    made = Nodes()
    transport = httpx.MockTransport(made.answer)
    monkeypatch.setattr(broker_admin, "http_client", lambda url, **_: httpx.Client(base_url=url, transport=transport))
    return made


@pytest.fixture
def admin(nodes: Nodes) -> BrokerAdmin:
    return BrokerAdmin(["http://a:15672", "http://b:15672", "http://c:15672"], "me", "secret")


def test_the_node_that_answered_last_is_asked_first(nodes: Nodes, admin: BrokerAdmin) -> None:
    nodes.away = {"a"}
    assert admin.identity().json()["name"] == "b"
    assert admin.identity().json()["name"] == "b"
    assert nodes.asked == ["a", "b", "b"]
    assert admin.api_url == "http://b:15672"


def test_a_request_that_others_overtake_at_a_dead_node_still_asks_every_other_node(
    nodes: Nodes, admin: BrokerAdmin
) -> None:
    nodes.away = {"a", "b"}
    nodes.meanwhile = [admin.identity, admin.identity]
    assert admin.identity().json()["name"] == "c"
    assert admin.identity().json()["name"] == "c"


def test_each_node_is_asked_once_and_the_last_one_is_named(nodes: Nodes, admin: BrokerAdmin) -> None:
    nodes.away = {"a", "b", "c"}
    with pytest.raises(BrokerUnavailable, match="http://c:15672"):
        admin.identity()
    assert nodes.asked == ["a", "b", "c"]
    nodes.away = {"a"}
    assert admin.identity().json()["name"] == "b"
