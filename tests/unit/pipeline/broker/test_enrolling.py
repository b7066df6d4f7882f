"""What a sign-in makes at RabbitMQ, and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest

from pipeline.broker import admin as broker_admin
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.machine_queues import MachineQueues
from pipeline.broker.machine_rights import LIMITS, worker_permissions, worker_queue_arguments
from protocol.errors import BrokerUnavailable
from protocol.types import Wallet
from tests.waiting import ample

ONE, OTHER = (Wallet("0x" + digits * 20) for digits in ("11", "22"))


class Broker:
    """RabbitMQ's management API with so many nodes, and its AMQP. `asked`: method and path, in order."""

    def __init__(self) -> None:
        self.nodes = 1
        self.rights: dict[str, dict[str, str]] = {}
        self.type = "classic"
        self.limits: dict[str, int] = LIMITS
        #: Whether queues are there that were declared otherwise.
        self.others = False
        self.declared: list[tuple[Wallet, bool]] = []
        self.asked: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What it answers, as a transport of httpx asks for it."""
        path = request.url.path
        self.asked.append(f"{request.method} {path}")
        match path.split("/")[1:]:
            case ["nodes"]:
                return httpx.Response(200, json=[{"name": f"n{number}"} for number in range(self.nodes)])
            case ["permissions", _, wallet] if request.method == "GET":
                known = self.rights.get(wallet)
                return httpx.Response(404) if known is None else httpx.Response(200, json=known)
            case ["queues", *_] if request.method == "GET":
                return httpx.Response(200, json={"type": self.type})
            case ["user-limits", wallet]:
                return httpx.Response(200, json=[{"user": wallet, "value": self.limits}])
            case _:
                return httpx.Response(204)

    def declare(self, wallet: Wallet, *, replicated: bool) -> bool:
        """As `MachineQueues`."""
        self.declared.append((wallet, replicated))
        return not self.others

    def changed(self) -> list[str]:
        """Requests since the last call that were no questions."""
        asked, self.asked = self.asked, []
        return [line for line in asked if not line.startswith("GET")]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def admin(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> BrokerAdmin:
    transport = httpx.MockTransport(broker.answer)
    base = "http://a:15672"
    monkeypatch.setattr(broker_admin, "http_client", lambda *_, **__: httpx.Client(base_url=base, transport=transport))
    return BrokerAdmin([base], "me", "secret", machine_queues=cast("MachineQueues", broker))


def test_a_machine_that_never_signed_in_costs_two_requests_and_its_queues(broker: Broker, admin: BrokerAdmin) -> None:
    admin.enrol(ONE, new=True)
    broker.asked.clear()
    admin.enrol(OTHER, new=True)
    assert broker.asked == [f"PUT /users/{OTHER}", f"PUT /permissions/pool/{OTHER}"]
    assert broker.declared == [(ONE, False), (OTHER, False)]


def test_where_rabbitmq_does_not_take_limits_with_a_user_they_are_set_one_by_one(
    broker: Broker, admin: BrokerAdmin
) -> None:
    broker.limits = {}
    for wallet in (ONE, OTHER):
        broker.asked.clear()
        admin.enrol(wallet, new=True)
        limits = [f"PUT /user-limits/{wallet}/{name}" for name in LIMITS]
        assert broker.changed() == [f"PUT /users/{wallet}", *limits, f"PUT /permissions/pool/{wallet}"]


@pytest.mark.parametrize(("nodes", "kind"), [(1, "classic"), (3, "quorum")])
def test_queues_are_replicated_where_there_are_nodes_to_replicate_to(
    broker: Broker, admin: BrokerAdmin, nodes: int, kind: str
) -> None:
    broker.nodes = nodes
    admin.enrol(ONE, new=True)
    assert broker.declared == [(ONE, nodes > 1)]
    arguments = worker_queue_arguments(replicated=nodes > 1)
    assert arguments["x-queue-type"] == kind
    assert ("x-delivery-limit" in arguments) == (nodes > 1)


def test_a_machine_whose_queues_were_made_before_the_cluster_gets_new_ones(broker: Broker, admin: BrokerAdmin) -> None:
    broker.rights[ONE], broker.nodes = worker_permissions(ONE), 3
    admin.enrol(ONE)
    assert broker.changed()[:2] == [f"DELETE /queues/pool/w.{ONE}", f"DELETE /queues/pool/w.{ONE}.tx"]
    broker.type = "quorum"
    admin.enrol(ONE)
    assert not [line for line in broker.changed() if line.startswith("DELETE")]


def test_queues_that_were_declared_otherwise_are_kept_on_a_single_node(broker: Broker, admin: BrokerAdmin) -> None:
    broker.rights[ONE], broker.others = worker_permissions(ONE), True
    admin.enrol(ONE)
    changed = broker.changed()
    assert f"PUT /users/{ONE}" in changed
    assert not [line for line in changed if "DELETE" in line or line.startswith("PUT /queues")]


def test_rights_of_an_older_release_go_with_all_that_the_machine_had(broker: Broker, admin: BrokerAdmin) -> None:
    broker.rights[ONE] = worker_permissions(ONE) | {"write": f"^w.{ONE}$"}
    admin.enrol(ONE)
    assert broker.changed()[:4] == [
        f"DELETE /users/{ONE}",
        f"DELETE /queues/pool/w.{ONE}",
        f"DELETE /queues/pool/w.{ONE}.tx",
        f"DELETE /exchanges/pool/w.{ONE}",
    ]


def test_a_machine_may_read_its_own_queues_and_nothing_else() -> None:
    read = rf"^w\.{ONE}(\.tx)?$"
    assert worker_permissions(ONE) == {"configure": "^$", "write": "^$", "read": read}


def test_a_sign_in_waits_for_its_turn_no_longer_than_its_machine(
    admin: BrokerAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_admin, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(admin, "_enrol", lambda *_, **__: admin.enrol(ONE))
    with pytest.raises(BrokerUnavailable, match="too many machines sign in at once"):
        admin.enrol(ONE)
    monkeypatch.setattr(admin, "_enrol", lambda *_, **__: "password")
    assert admin.enrol(ONE) == "password", "every turn that was taken was given back"


def test_sign_ins_beyond_those_that_may_wait_are_refused_at_once_so_that_pings_find_a_thread(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_admin, "MOST_WAITING", 0)
    monkeypatch.setattr(broker_admin, "TURN_SECONDS", ample(600.0))
    admin, asked = BrokerAdmin(["http://a:15672"], "me", "secret"), [0]

    def enrol_more(*_: Any, **__: Any) -> str:
        asked[0] += 1
        return admin.enrol(ONE)

    monkeypatch.setattr(admin, "_enrol", enrol_more)
    with pytest.raises(BrokerUnavailable, match="too many machines sign in at once"):
        admin.enrol(ONE)
    assert (asked[0], broker.asked) == (broker_admin.ENROLMENTS_AT_ONCE, [])
    # Half of the threads that the API's routes share are left to all other requests.
    monkeypatch.undo()
    assert broker_admin.ENROLMENTS_AT_ONCE + broker_admin.MOST_WAITING <= 20


class Link:
    """A connection that fails as told, once each. `tries`: how often it was used."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.tries = list(failures), 0

    def declare(self, *_: object, **__: object) -> bool:
        """As `machine_queues._declare`."""
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        return True


def _unavailable(cause: Exception) -> BrokerUnavailable:
    error = BrokerUnavailable(what="it", why=str(cause))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(("cause", "tries"), [(ConnectionResetError, 2), (TimeoutError, 1)])
def test_a_connection_that_was_cut_while_idle_is_opened_again_and_a_silent_broker_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, cause: Callable[[], Exception], tries: int
) -> None:
    link = Link(_unavailable(cause()), _unavailable(ConnectionResetError()))
    monkeypatch.setattr("pipeline.broker.machine_queues._declare", link.declare)
    queues = MachineQueues(cast("Any", None))
    with pytest.raises(BrokerUnavailable):
        queues.declare(ONE, replicated=False)
    assert link.tries == 1, "a connection that is opened just now fails at once"
    link.failures, link.tries = [_unavailable(cause())], 0
    if tries == 2:
        assert queues.declare(ONE, replicated=False)
    else:
        with pytest.raises(BrokerUnavailable):
            queues.declare(ONE, replicated=False)
    assert link.tries == tries
