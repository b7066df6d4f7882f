"""Two pools at one broker, with a machine that works for both under one wallet."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing

import amqp
import pytest
from amqp.exceptions import AccessRefused

from config.connections.http_client import http_client
from config.settings import Settings, read_settings
from ops.stack.parts import credentials
from ops.stack.stack import Stack
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.users import machine_user
from protocol.ethereum.signing import Key
from protocol.wire import BrokerAccess
from tests.integration.api.broker import connect
from tests.integration.conftest import given, two_vhosts
from tests.waiting import ample, until

WALLET = Key(secrets.token_bytes(32)).wallet


@pytest.fixture
def pools(stack: Stack) -> Iterator[list[Settings]]:
    """Settings of the two pools."""
    with two_vhosts(stack) as first, two_vhosts(stack) as second:
        yield [
            read_settings(**given(stack.settings) | {"amqp_core_vhost": core, "amqp_pool_vhost": pool})
            for core, pool in (first, second)
        ]


def access(settings: Settings, password: str) -> BrokerAccess:
    host, _, port = settings.amqp_url.get_secret_value().rpartition("@")[2].partition("/")[0].partition(":")
    name, vhost = f"w.{WALLET}", settings.amqp_pool_vhost
    return BrokerAccess(
        host=host,
        port=int(port),
        tls=False,
        vhost=vhost,
        username=machine_user(vhost, WALLET),
        password=password,
        exchange=name,
        compute_queue=name,
        tx_queue=f"{name}.tx",
    )


def read(connection: amqp.Connection) -> None:
    """Read the machine's queue, as only its user may."""
    connection.channel().basic_get(f"w.{WALLET}")


def test_signing_in_at_one_pool_or_being_banned_there_changes_nothing_at_the_other(pools: list[Settings]) -> None:
    admins = [BrokerAdmin.from_settings(settings) for settings in pools]
    first, second = (access(*each) for each in zip(pools, [admin.enrol(WALLET) for admin in admins], strict=True))
    with connect(second) as stays:
        with connect(first) as connection:
            read(connection)
        read(stays)
        assert [admin.machines()[0] for admin in admins] == [{WALLET}, {WALLET}]

        admins[0].remove(WALLET)
        until("the first pool has cut it off", lambda: _refused(first))
        assert admins[0].machines() == (frozenset(), frozenset())
        read(stays)
        with connect(second) as again:
            read(again)
        assert admins[1].machines()[0] == {WALLET}
    for admin in admins:
        admin.close()


def _refused(there: BrokerAccess) -> bool:
    try:
        connect(there).collect()
    except AccessRefused:
        return True
    return False


def test_a_machines_user_of_an_older_release_which_all_pools_shared_is_removed_at_the_start(
    pools: list[Settings],
) -> None:
    settings = pools[0]
    user, password = credentials(settings)
    nothing = {"configure": "^$", "write": "^$", "read": "^$"}
    with (
        http_client(settings.rabbitmq_api, auth=(user, password), timeout=ample(10.0)) as api,
        closing(BrokerAdmin.from_settings(settings)) as admin,
    ):
        api.put(f"/api/users/{WALLET}", json={"password": "old", "tags": ""}).raise_for_status()
        api.put(f"/api/permissions/{settings.amqp_pool_vhost}/{WALLET}", json=nothing).raise_for_status()
        connect(access(settings, "old").model_copy(update={"username": WALLET})).collect()
        assert admin.machines()[0] == frozenset()
        admin.enrol(WALLET)
        admin.prepare()
        assert api.get(f"/api/users/{WALLET}").status_code == 404
        assert admin.machines()[0] == {WALLET}
