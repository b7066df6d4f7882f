"""Machines that sign in are given what they have at RabbitMQ together."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import httpx
import pytest

from pipeline.broker import admin as broker_admin
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.machine_definitions import Admission, definitions, worker_permissions
from protocol.errors import BrokerRefused, BrokerUnavailable, Unavailable
from protocol.types import Wallet

ONE, OTHER = (Wallet("0x" + digits * 20) for digits in ("11", "22"))


class Broker:
    """RabbitMQ's management API with so many nodes. `asked`: method and path, in order; `defined`: what it was sent."""

    def __init__(self, nodes: int = 1) -> None:
        self.nodes = nodes
        self.rights: dict[str, dict[str, str]] = {}
        self.type = "classic"
        self.refused: set[Wallet] = set()
        self.away = False
        self.asked: list[str] = []
        self.defined: list[dict[str, Any]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What it answers, as a transport of httpx asks for it."""
        path = request.url.path.removeprefix("/api")
        self.asked.append(f"{request.method} {path}")
        if self.away:
            raise httpx.ConnectTimeout("timed out")
        match path.split("/")[1:]:
            case ["nodes"]:
                return httpx.Response(200, json=[{"name": f"n{number}"} for number in range(self.nodes)])
            case ["permissions", _, wallet]:
                known = self.rights.get(wallet)
                return httpx.Response(404) if known is None else httpx.Response(200, json=known)
            case ["queues", *_] if request.method == "GET":
                return httpx.Response(200, json={"type": self.type})
            case ["definitions"]:
                sent = json.loads(request.content)
                self.defined.append(sent)
                if self.refused & {user["name"] for user in sent["users"]}:
                    return httpx.Response(400, json={"error": "bad_request", "reason": "no"})
                return httpx.Response(204)
            case _:
                return httpx.Response(204)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def admin(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> BrokerAdmin:
    transport = httpx.MockTransport(broker.answer)
    monkeypatch.setattr(
        broker_admin, "http_client", lambda url, **_: httpx.Client(base_url=f"{url}", transport=transport)
    )
    return BrokerAdmin(["http://a:15672"], "me", "secret")


def test_a_machine_that_never_signed_in_costs_one_request(broker: Broker, admin: BrokerAdmin) -> None:
    admin.enrol(ONE, new=True)
    admin.enrol(OTHER, new=True)
    assert broker.asked == ["GET /nodes", "POST /definitions", "POST /definitions"]


def test_what_one_machine_is_refused_keeps_no_other_out(broker: Broker, admin: BrokerAdmin) -> None:
    broker.refused = {ONE}
    outcomes = admin._enrol_each([Admission(ONE, new=True), Admission(OTHER, new=True)])
    assert isinstance(outcomes[0], BrokerRefused)
    assert outcomes[1] is None
    assert [[user["name"] for user in sent["users"]] for sent in broker.defined] == [[ONE, OTHER], [ONE], [OTHER]]


def test_a_broker_that_does_not_answer_fails_the_sign_in(broker: Broker, admin: BrokerAdmin) -> None:
    broker.away = True
    with pytest.raises(BrokerUnavailable):
        admin.enrol(ONE)
    broker.away = False
    assert admin.enrol(ONE)


def test_beyond_those_that_may_wait_a_sign_in_is_refused_at_once_so_that_pings_find_a_thread(
    admin: BrokerAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin._enrolments, "_most", 0)
    with pytest.raises(Unavailable, match="too many ask at once"):
        admin.enrol(ONE)
    # Half of the threads that the API's routes share are left to all other requests.
    assert broker_admin.MOST_SIGN_INS <= 20


@pytest.mark.parametrize(("nodes", "kind"), [(1, "classic"), (3, "quorum")])
def test_queues_are_replicated_where_there_are_nodes_to_replicate_to(
    broker: Broker, admin: BrokerAdmin, nodes: int, kind: str
) -> None:
    broker.nodes = nodes
    admin.enrol(ONE, new=True)
    (sent,) = broker.defined
    assert [queue["arguments"]["x-queue-type"] for queue in sent["queues"]] == [kind, kind]
    assert all(("x-delivery-limit" in queue["arguments"]) == (nodes > 1) for queue in sent["queues"])


def test_a_machine_whose_queues_were_made_before_the_cluster_gets_new_ones(broker: Broker, admin: BrokerAdmin) -> None:
    broker.rights[ONE], broker.nodes = worker_permissions(ONE), 3
    admin.enrol(ONE)
    deleted = [line for line in broker.asked if line.startswith("DELETE")]
    assert deleted == [f"DELETE /queues/pool/w.{ONE}", f"DELETE /queues/pool/w.{ONE}.tx"]
    broker.type = "quorum"
    broker.asked.clear()
    admin.enrol(ONE)
    assert not [line for line in broker.asked if line.startswith("DELETE")]


def test_a_machine_on_a_single_node_keeps_its_queues_whatever_they_are(broker: Broker, admin: BrokerAdmin) -> None:
    broker.rights[ONE], broker.type = worker_permissions(ONE), "quorum"
    admin.enrol(ONE)
    assert not [line for line in broker.asked if line.startswith("DELETE")]


def test_rights_of_an_older_release_go_with_all_that_the_machine_had(broker: Broker, admin: BrokerAdmin) -> None:
    broker.rights[ONE] = worker_permissions(ONE) | {"write": f"^w.{ONE}$"}
    admin.enrol(ONE)
    deleted = [line for line in broker.asked if line.startswith("DELETE")]
    assert f"DELETE /users/{ONE}" in deleted
    assert f"DELETE /exchanges/pool/w.{ONE}" in deleted


def test_a_machine_may_read_its_own_queues_and_nothing_else() -> None:
    made = definitions([Admission(ONE), Admission(OTHER)], "pool", replicated=False)
    for wallet, rights, user in zip((ONE, OTHER), made["permissions"], made["users"], strict=True):
        assert rights == {
            "user": wallet,
            "vhost": "pool",
            "configure": "^$",
            "write": "^$",
            "read": rf"^w\.{wallet}(\.tx)?$",
        }
        assert (user["name"], user["tags"]) == (wallet, "")
        assert user["limits"] == {"max-connections": 12, "max-channels": 48}


def test_the_password_is_sent_as_its_salted_hash_only() -> None:
    admissions = [Admission(ONE), Admission(ONE)]
    sent = definitions(admissions, "pool", replicated=False)
    salts = set()
    for admission, user in zip(admissions, sent["users"], strict=True):
        raw = base64.b64decode(user["password_hash"])
        salts.add(raw[:4])
        assert raw[4:] == hashlib.sha256(raw[:4] + admission.password.encode()).digest()
        assert admission.password not in json.dumps(sent) + repr(admission)
    assert len(salts) == 2
