"""Several nodes of RabbitMQ in one setting, and what a client does when it turns to another of them."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from config.celery_apps import NodeConnection, connect_machine, core_app, machine_app
from config.connections import broker_nodes
from config.settings import read_settings
from protocol.errors import BadSetting
from protocol.types import Wallet
from protocol.wire import BrokerAccess, BrokerNode

WALLET = Wallet("0x" + "ab" * 20)
THREE = tuple(BrokerNode(host=name, port=5671) for name in ("a", "b", "c"))


def test_every_node_gets_the_virtual_host() -> None:
    settings = read_settings(amqp_url="amqp://me:x%2Fy@a:1 ; amqp://me:x%2Fy@b:2/;", amqp_core_vhost="c/1")
    assert broker_nodes.amqp_urls(settings) == ["amqp://me:x%2Fy@a:1", "amqp://me:x%2Fy@b:2"]
    assert core_app(settings).conf.broker_url == "amqp://me:x%2Fy@a:1/c%2F1;amqp://me:x%2Fy@b:2/c%2F1"
    assert broker_nodes.with_vhost("amqp://a:1/core;amqp://b:2/core", "/") == "amqp://a:1/%2F;amqp://b:2/%2F"


@pytest.mark.parametrize(
    ("hosts", "nodes"),
    [
        ("pool.example", [("pool.example", 5671)]),
        ("a.example;b.example:5673", [("a.example", 5671), ("b.example", 5673)]),
        ("2001:db8::1;[2001:db8::2]:5673", [("2001:db8::1", 5671), ("2001:db8::2", 5673)]),
    ],
)
def test_hosts_for_workers_may_have_a_port_each(hosts: str, nodes: list[tuple[str, int]]) -> None:
    settings = read_settings(amqp_public_host=hosts, amqp_public_port=5671)
    assert [(node.host, node.port) for node in broker_nodes.public_nodes(settings)] == nodes


@pytest.mark.parametrize("hosts", ["", "a:x", "a:70000", "[::1"])
def test_what_is_no_host_is_named_by_its_setting(hosts: str) -> None:
    with pytest.raises(BadSetting, match="SLUICE_AMQP_PUBLIC_HOST"):
        broker_nodes.public_nodes(read_settings(amqp_public_host=hosts))


def test_machines_begin_at_different_nodes_and_know_all() -> None:
    orders = [broker_nodes.nodes_for(Wallet(f"0x{number:040x}"), THREE) for number in range(6)]
    assert [order[0].host for order in orders] == ["a", "b", "c", "a", "b", "c"]
    assert all(sorted(order, key=lambda node: node.host) == [*THREE] for order in orders)


def connection(*, tls: bool) -> Any:
    """A machine's NodeConnection to three nodes; nothing is sent."""
    access = BrokerAccess(
        host="a", port=5671, tls=tls, vhost="pool", username=WALLET, password="first", exchange="x",
        compute_queue="q", tx_queue="t", others=THREE[1:],
    )  # fmt: skip
    app = machine_app(WALLET)
    connect_machine(app, access, None, lambda: "newest")
    made = app.connection_for_read()
    assert isinstance(made, NodeConnection)
    return made


def test_a_machine_that_turns_to_another_node_still_asks_for_its_newest_password() -> None:
    made = connection(tls=False)
    seen = []
    for _ in range(4):
        made.maybe_switch_next()
        seen.append(made.hostname)
        assert callable(made.password)
        assert (made.password(), made.userid, made.virtual_host) == ("newest", WALLET, "pool")
    assert seen == ["b", "c", "a", "b"]


def test_each_nodes_certificate_must_name_that_node() -> None:
    made = connection(tls=True)
    for _ in range(3):
        assert made.ssl["server_hostname"] == made.hostname
        assert made.ssl["cert_reqs"] == ssl.CERT_REQUIRED
        made.maybe_switch_next()
