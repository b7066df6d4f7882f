"""An enrolled stranger tries all that a RabbitMQ user can while the pool's honest machines are at a deal."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest
from amqp.exceptions import AccessRefused, AMQPError

from bench.rig.bench_pool import BenchPool
from bench.rig.fresh_wallets import asked_again, offer
from ops.pool.site import Servers
from pipeline.broker.users import wallet_of_user
from protocol.ethereum.signing import Key
from protocol.poco.view import TaskStatus
from tests.integration.api.at_the_broker.acts import Acts, Stranger
from tests.integration.pool.conftest import HONEST, set_banned
from workers.pool.api import PoolApi


@pytest.fixture
def stranger(shared_pool: BenchPool, shared_servers: Servers) -> Iterator[Stranger]:
    """A machine that has signed in, and does nothing that a machine does; banned afterwards."""
    key = Key(secrets.token_bytes(32))
    with closing(PoolApi(shared_pool.pool.api_url)) as api:
        access = api.sign_in(key, asked_again(api.config), offer("stranger", 1)).broker
    # The same broker without TLS, which is not what is tried here.
    made = Stranger(access.model_copy(update={"port": urlsplit(shared_servers.amqp_url).port, "tls": False}))
    yield made
    made.close()
    set_banned(shared_pool, [key.wallet], banned=True)


def test_a_deal_completes_while_a_stranger_tries_everything_at_the_broker(
    shared_pool: BenchPool, stranger: Stranger
) -> None:
    wallet = wallet_of_user(stranger.access.vhost, stranger.access.username)
    assert wallet is not None
    honest = [worker.key.wallet for worker in shared_pool.pool.on_chain.workers[:HONEST]]
    before = shared_pool.hub.accounts(honest)
    deal = shared_pool.buy(trust=3, volume=4, args="sleep 1")
    for victim in honest:
        acts = Acts(wallet, victim)
        for name, act in acts.refused().items():
            channel = stranger.channel()
            try:
                act(channel)
            except AccessRefused:
                continue
            raise AssertionError(f"{name} was let in")
        for act in acts.allowed().values():
            try:
                act(stranger.channel())
            except (AMQPError, OSError):
                stranger.close()
    views = shared_pool.wait([deal])
    assert {view.status for view in views.values()} == {TaskStatus.COMPLETED}
    after = shared_pool.wait([shared_pool.buy(trust=3, volume=1)])
    assert {view.status for view in after.values()} == {TaskStatus.COMPLETED}
    now = shared_pool.hub.accounts(honest)
    assert all(one.stake + one.locked >= was.stake + was.locked for one, was in zip(now, before, strict=True))
    with suppress(OSError, AMQPError):
        stranger.close()
