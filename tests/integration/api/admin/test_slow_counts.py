"""What the operator sees while one of the servers answers most questions and is too slow for one of them."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

import httpx
import pytest

from config.connections.http_client import http_client
from config.http_server.server import http_server
from config.settings import Settings
from ops.stack import ports
from pipeline.api.admin.access import operator_token
from pipeline.api.application import create_operations_app
from pipeline.api.services import Services
from pipeline.broker.admin import MACHINES_QUEUES, BrokerAdmin
from pipeline.domain.condition.facts import BrokerFacts
from pipeline.probes import Probes
from pipeline.store.client import Store, database
from protocol.ethereum.signing import Key
from tests.faulty.http import Handler, beside
from tests.integration.api.conftest import SCHEDULER_KEY, Api
from tests.waiting import ample, wait_until

#: Milliseconds for which a slow query would run: longer than anybody waits for it.
LONG = 60_000


@contextmanager
def operator(services: Services) -> Iterator[httpx.Client]:
    """A client of the operations port of an API process over these services."""
    port = ports.free_port()
    server = http_server(services.settings, create_operations_app(services), "127.0.0.1", port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, 10.0, what="the operations port")
    headers = {"authorization": f"Bearer {operator_token(services.settings)}"}
    try:
        with http_client(f"http://127.0.0.1:{port}", timeout=ample(30.0), headers=headers) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def apart(api: Api, database: str) -> Services:
    """The API's services over a database of its own, which has one row to be slow about."""
    settings = api.settings.model_copy(update={"mongodb_database": database})
    store = Store.open(settings)
    store.ensure_indexes()
    # MongoDB looks whether a row is asked for at all before it is slow about it: this one always is.
    store._db["one"].insert_one({"_id": "pause", "held": True, "until": 1.0, "collection": "tasks"})
    return replace(api.services, settings=settings, store=store)


def make_slow(settings: Settings, collection: str) -> None:
    """Put a view in the place of a collection, of which each query takes LONG."""
    db = database(settings)
    db.drop_collection(collection)
    body = f"function() {{ const end = Date.now() + {LONG}; while (Date.now() < end) {{}} return true; }}"
    slow = {"$match": {"$expr": {"$function": {"body": body, "args": ["$_id"], "lang": "js"}}}}
    db.command("create", collection, viewOn="one", pipeline=[slow])


def test_a_query_that_is_too_slow_hides_only_its_own_gauge(apart: Services) -> None:
    names = ("sluice_tasks", "sluice_machines", "sluice_paused", "sluice_transaction_oldest_age_seconds")
    hidden = "sluice_quarantined_rows"
    with operator(apart) as client:
        text = client.get("/metrics").raise_for_status().text
        assert [name for name in (*names, hidden) if f"\n# TYPE {name} " not in text] == []
        make_slow(apart.settings, "quarantine")
        text = wait_until(
            lambda: text if hidden not in (text := client.get("/metrics").text) else "", 20, what="a slow count"
        )
        assert [name for name in names if f"\n# TYPE {name} " not in text] == []


def test_status_needs_somebody_while_the_work_cannot_be_counted(apart: Services) -> None:
    with operator(apart) as client:
        found = client.get("/admin/status").raise_for_status().json()
        assert found["work"] is not None
        assert "work" not in {alert["part"] for alert in found["alerts"]}
        make_slow(apart.settings, "pool")
        found = client.get("/admin/status").raise_for_status().json()
        assert found["work"] is None
        (alert,) = [alert for alert in found["alerts"] if alert["part"] == "work"]
        assert "MongoDB" in alert["says"]
        assert not found["ok"]


class _Relay(Handler):
    """Passes requests on to RabbitMQ's management API, and leaves the list of the machines' queues unanswered."""

    upstream: ClassVar[str]
    slow: ClassVar[str]
    over: ClassVar[threading.Event]

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        if self.path.startswith(self.slow):
            self.over.wait()
            self.close_connection = True
            return
        host = urlsplit(self.upstream)
        there = http.client.HTTPConnection(host.hostname or "", host.port)
        there.request("GET", self.path, headers={"authorization": self.headers["authorization"]})
        answer = there.getresponse()
        body = answer.read()
        there.close()
        self.send_response(answer.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def slow_listing(api: Api) -> Iterator[Settings]:
    """Settings of a RabbitMQ that does not get done with listing the machines' queues."""
    over = threading.Event()
    named = {"upstream": api.settings.rabbitmq_api, "slow": f"/api/queues/{api.settings.amqp_pool_vhost}", "over": over}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Relay", (_Relay,), named))
    with beside(server):
        yield api.settings.model_copy(update={"rabbitmq_api": f"http://127.0.0.1:{server.server_address[1]}"})
        over.set()


def test_a_slow_list_of_the_machines_queues_does_not_hide_those_of_the_scheduler_from_metrics(
    slow_listing: Settings,
) -> None:
    probes = Probes.open(slow_listing, Key.from_hex(SCHEDULER_KEY))
    try:
        found = probes.ask(running=True).broker
    finally:
        probes.close()
    assert isinstance(found, BrokerFacts)
    names = {queue.name for queue in found.queues}
    assert "dead" in names
    assert MACHINES_QUEUES not in names


def test_a_slow_list_of_the_machines_queues_does_not_hide_those_of_the_scheduler_from_people(
    api: Api, slow_listing: Settings
) -> None:
    with (
        BrokerAdmin.from_settings(slow_listing, timeout=2.0) as broker,
        operator(replace(api.services, broker=broker)) as client,
    ):
        names = {queue["name"] for queue in client.get("/admin/queues").raise_for_status().json()}
    assert "dead" in names
    assert MACHINES_QUEUES not in names
