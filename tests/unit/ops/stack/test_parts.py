"""Whose server each part of the stack is, decided from settings alone."""

from __future__ import annotations

import pytest

from config.settings import Settings, read_settings
from config.values.stack_settings import StackSettings
from ops.stack import parts
from ops.stack.clusters import members
from ops.stack.parts import StackPart
from ops.stack.servers import rabbitmq

#: The defaults, whatever the shell that runs the tests says.
PORTS = StackSettings.model_construct()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SLUICE_{name.upper()}", raising=False)


@pytest.mark.parametrize("part", list(StackPart))
def test_without_settings_every_part_is_our_own(part: StackPart) -> None:
    assert parts.choose(part, read_settings(), PORTS).ours


def test_a_database_that_the_settings_name_is_used_and_not_started() -> None:
    choice = parts.choose(
        StackPart.MONGODB, read_settings(mongodb_uri="mongodb://db.example:27017/?replicaSet=x"), PORTS
    )
    assert not choice.ours
    assert choice.because == "SLUICE_MONGODB_URI"
    assert choice.settings == {"SLUICE_MONGODB_URI": "mongodb://db.example:27017/?replicaSet=x"}


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("part", list(StackPart))
def test_settings_that_lead_to_our_own_server_keep_it_ours(part: StackPart, clustered: bool) -> None:
    """A shell that sourced stack.env and runs `up` again must find the same servers."""
    numbers = PORTS.model_copy(update={"cluster": clustered})
    ours = parts.own(part, read_settings(), numbers)
    sourced = {name.removeprefix("SLUICE_").lower(): value for name, value in ours.settings.items()}
    assert parts.choose(part, read_settings(**sourced), numbers) == ours


def test_of_a_cluster_all_members_are_named() -> None:
    numbers = PORTS.model_copy(update={"cluster": True})
    database = parts.own(StackPart.MONGODB, read_settings(), numbers).settings["SLUICE_MONGODB_URI"]
    broker = parts.own(StackPart.RABBITMQ, read_settings(amqp_url="amqp://me:secret@x"), numbers)
    for host in members.HOSTS:
        assert f"{host}:{numbers.mongodb_port}" in database
        assert f"amqp://me:secret@{host}:{numbers.rabbitmq_port}" in broker.settings["SLUICE_AMQP_URL"].split(";")
        assert host in broker.settings["SLUICE_AMQP_PUBLIC_HOST"].split(";")
    assert broker.endpoint == f"amqp://{members.HOSTS[0]}:{numbers.rabbitmq_port}"


def test_our_own_broker_takes_user_and_password_from_the_settings() -> None:
    settings = read_settings(amqp_url="amqp://pool:secret@127.0.0.1:18672")
    choice = parts.choose(StackPart.RABBITMQ, settings, PORTS)
    assert choice.ours
    assert parts.credentials(settings) == ("pool", "secret")


def test_what_is_shown_of_an_address_holds_no_password() -> None:
    choice = parts.choose(StackPart.MONGODB, read_settings(mongodb_uri="mongodb://me:secret@db.example/?w=1"), PORTS)
    assert choice.endpoint == "mongodb://db.example"
    assert "secret" not in repr(choice)


def test_what_is_shown_of_a_node_holds_no_key_of_the_operators() -> None:
    nodes = "https://node.example/v2/s3cret,https://me:s3cret@other.example?key=s3cret"
    choice = parts.choose(StackPart.CHAIN, read_settings(rpc_url=nodes), PORTS)
    assert choice.endpoint == "https://node.example/***"


def test_parts_come_in_the_stacks_order_and_all_of_them_when_none_is_named() -> None:
    assert parts.wanted(()) == tuple(StackPart)
    assert parts.wanted([StackPart.IPFS, StackPart.MONGODB]) == (StackPart.MONGODB, StackPart.IPFS)


def test_every_default_port_is_below_the_kernels_own() -> None:
    ports = [PORTS.mongodb_port, PORTS.rpc_port, PORTS.ipfs_api_port, PORTS.ipfs_gateway_port]
    ports += [PORTS.rabbitmq_port + offset for offset in range(rabbitmq.CLUSTER_PORTS)]
    assert len(set(ports)) == len(ports)
    assert max(ports) < 32768


def test_workers_use_the_listener_with_tls_if_the_stack_is_told_to() -> None:
    plain, settings = parts.own(StackPart.RABBITMQ, read_settings(), PORTS).settings, read_settings()
    with_tls = parts.own(StackPart.RABBITMQ, settings, PORTS.model_copy(update={"tls": True})).settings
    assert plain["SLUICE_AMQP_PUBLIC_TLS"] == "false"
    assert with_tls["SLUICE_AMQP_PUBLIC_TLS"] == "true"
    assert int(with_tls["SLUICE_AMQP_PUBLIC_PORT"]) == PORTS.rabbitmq_port + 5
    assert with_tls["SLUICE_AMQP_CA_FILE"].endswith("/stack/rabbitmq/tls/ca.pem")
    assert with_tls["SLUICE_AMQP_URL"] == plain["SLUICE_AMQP_URL"]
