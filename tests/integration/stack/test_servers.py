"""Each server of the stack by itself: ready when it says so, and safe against kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from kombu import Connection, Producer, Queue
from pymongo import MongoClient

from chain.rpc.client import Rpc
from ops.poco.state import PocoState
from ops.stack import ports
from ops.stack.servers import anvil, ipfs, mongodb, rabbitmq
from ops.stack.servers.rabbitmq import RabbitMQ
from protocol.errors import PortTaken
from tests.waiting import ample, wait_until


def test_mongodb_takes_durable_writes_at_once_and_keeps_them_through_a_kill(tmp_path: Path) -> None:
    server = mongodb.start(tmp_path / "mongodb", ports.free_port())
    try:
        with MongoClient[dict[str, Any]](server.uri) as client:
            client.test.things.insert_one({"_id": 1})
        server.process.kill()
        assert not mongodb.ready(server.uri, seconds=0.2)
        again = mongodb.start(tmp_path / "mongodb", server.port)
        assert again.process.pid != server.process.pid
        with MongoClient[dict[str, Any]](again.uri) as client:
            assert client.test.things.count_documents({}) == 1
    finally:
        mongodb.start(tmp_path / "mongodb", server.port).stop()
    assert ports.is_free(server.port)


def test_mongodb_comes_up_with_its_data_at_another_port(tmp_path: Path) -> None:
    before = mongodb.start(tmp_path / "mongodb", ports.free_port())
    with MongoClient[dict[str, Any]](before.uri) as client:
        client.test.things.insert_one({"_id": 1})
    before.stop()
    after = mongodb.start(tmp_path / "mongodb", ports.free_port())
    try:
        assert after.port != before.port
        with MongoClient[dict[str, Any]](after.uri) as client:
            assert client.test.things.count_documents({}) == 1
            client.test.things.insert_one({"_id": 2})
    finally:
        after.stop()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One node for all tests of this file: it takes seconds to start."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    node = rabbitmq.start(folder, ports.free_port(rabbitmq.PORTS), user="me", password="se:cret")
    yield node
    now = rabbitmq.start(folder, node.port, user="me", password="se:cret")
    # Its data is thrown away: a clean end would take 6 s.
    now.process.kill()
    now.stop()
    assert all(ports.is_free(node.port + offset) for offset in range(rabbitmq.PORTS))


def test_rabbitmq_has_its_user_and_virtual_hosts_when_it_is_ready(broker: RabbitMQ) -> None:
    for vhost in ("core", "pool"):
        with _connection(broker, vhost) as connection:
            connection.ensure_connection(max_retries=1)


def test_rabbitmq_keeps_confirmed_messages_through_a_kill(broker: RabbitMQ) -> None:
    queue = Queue("kept", queue_arguments={"x-queue-type": "quorum"})
    with _connection(broker, "core") as connection, connection.channel() as channel:
        queue(channel).declare()
        Producer(channel, routing_key="kept").publish("hello")
    # RabbitMQ 3.10 loses a queue that is younger than a second at a kill; once statistics know it, it is older.
    wait_until(partial(_messages, broker, "kept"), 20, what="the message in the user interface")
    broker.process.kill()
    folder = broker.process.pid_file.parent
    again = rabbitmq.start(folder, broker.port, user="me", password="se:cret")
    assert again.process.pid != broker.process.pid
    with _connection(again, "core") as connection, connection.channel() as channel:
        message = wait_until(partial(queue(channel).get, no_ack=True), 10, what="the message")
        assert message is not None
        assert message.payload == "hello"


def test_rabbitmq_lets_nobody_in_without_the_password_and_its_files_do_not_hold_it(broker: RabbitMQ) -> None:
    assert not rabbitmq.ready(broker.api_url, "me", "guess")
    assert not rabbitmq.ready(broker.api_url, "guest", "guest")
    folder = broker.process.pid_file.parent
    assert all("se:cret" not in file.read_text() for file in folder.glob("*.*") if file.is_file())


def test_the_chain_starts_from_a_saved_state_with_the_gas_limit_asked_for(
    poco_state: PocoState, tmp_path: Path
) -> None:
    node = anvil.start(
        tmp_path / "chain", ports.free_port(), block_time=0.2, load=poco_state.path, block_gas=100_000_000
    )
    try:
        with Rpc(node.rpc_url) as rpc:
            head = int(rpc.call("eth_blockNumber"), 16)
            assert len(rpc.call("eth_getCode", poco_state.addresses.hub, "latest")) > 2
            wait_until(lambda: int(rpc.call("eth_blockNumber"), 16) >= head + 3, 5, what="three blocks")
            assert int(rpc.call("eth_getBlockByNumber", "latest", False)["gasLimit"], 16) == 100_000_000
    finally:
        node.stop()


def test_a_chain_told_to_keep_its_state_goes_on_where_it_stopped(tmp_path: Path) -> None:
    port, kept = ports.free_port(), tmp_path / "state.json"
    node = anvil.start(tmp_path / "chain", port, block_time=None, keep=kept)
    with Rpc(node.rpc_url) as rpc:
        rpc.call("anvil_mine", hex(7))
    node.stop()
    again = anvil.start(tmp_path / "chain", port, block_time=None, keep=kept)
    try:
        with Rpc(again.rpc_url) as rpc:
            assert int(rpc.call("eth_blockNumber"), 16) == 7
    finally:
        again.stop()


def test_a_file_added_to_ipfs_is_served_by_the_gateway_and_survives_a_kill(tmp_path: Path) -> None:
    node = ipfs.start(tmp_path / "ipfs", ports.free_port(), ports.free_port())
    try:
        added = httpx.post(
            f"{node.api}/api/v0/add", params={"pin": "true"}, files={"file": b"hello"}, timeout=ample(5.0)
        ).json()["Hash"]
        node.process.kill()
        node = ipfs.start(tmp_path / "ipfs", node.api_port, node.gateway_port)
        assert httpx.get(f"{node.gateway}/ipfs/{added}", timeout=ample(5.0)).content == b"hello"
    finally:
        node.stop()


def test_a_taken_port_is_named_with_the_setting_that_moves_it(tmp_path: Path) -> None:
    port = ports.free_port()
    somebody = anvil.start(tmp_path / "somebody", port, block_time=None)
    try:
        with pytest.raises(PortTaken, match=rf"Port {port}, wanted for MongoDB.*SLUICE_STACK_MONGODB_PORT"):
            mongodb.start(tmp_path / "mongodb", port)
        with pytest.raises(PortTaken, match=rf"Port {port}, wanted for RabbitMQ.*SLUICE_STACK_RABBITMQ_PORT"):
            rabbitmq.start(tmp_path / "rabbitmq", port)
        with pytest.raises(PortTaken, match=rf"Port {port}, wanted for the IPFS API.*SLUICE_STACK_IPFS_API_PORT"):
            ipfs.start(tmp_path / "ipfs", port, ports.free_port())
        with pytest.raises(PortTaken, match=rf"Port {port}, wanted for the chain.*SLUICE_STACK_RPC_PORT"):
            anvil.start(tmp_path / "chain", port)
        assert somebody.process.alive()
    finally:
        somebody.stop()


def _messages(broker: RabbitMQ, queue: str) -> int:
    with httpx.Client(base_url=broker.api_url, auth=(broker.user, broker.password), timeout=ample(5.0)) as api:
        return int(api.get(f"/api/queues/core/{queue}").json().get("messages", 0))


def _connection(broker: RabbitMQ, vhost: str) -> Connection:
    options = {"confirm_publish": True}
    return Connection(
        hostname="127.0.0.1",
        port=broker.port,
        userid=broker.user,
        password=broker.password,
        virtual_host=vhost,
        transport_options=options,
    )
