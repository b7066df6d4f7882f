"""A machine whose connection to RabbitMQ is cut gets no new task, at once; one that is back does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import amqp
import pytest
from structlog.testing import capture_logs

from config.celery_apps import pool_app
from config.settings import read_settings
from ops.stack.clusters import partition
from ops.stack.servers.broker_sockets import IDLE_SECONDS, INTERVAL_SECONDS, QUESTIONS, SILENT_MS
from pipeline.broker import presence
from pipeline.broker.presence import Presence
from pipeline.broker.users import wallet_of_user
from pipeline.domain.records import ChainFacts
from pipeline.store.machine.workers import DISCONNECTED_SECONDS
from protocol.types import NRlc, Wallet, Wei
from protocol.wire import BrokerAccess, Session
from tests.integration.api.broker import connect
from tests.integration.api.conftest import STRANGER, WORKER, Api
from tests.waiting import ample, wait_until


@pytest.fixture
def returned() -> list[int]:
    """Grows each time that machines are back."""
    return []


@pytest.fixture
def followed(api: Api, returned: list[int]) -> Iterator[threading.Thread]:
    """The scheduler's thread that follows RabbitMQ's events, once it does."""
    stop, pool = threading.Event(), pool_app(api.settings)
    follower = Presence(pool, api.settings.amqp_pool_vhost, api.services.store.workers, lambda: returned.append(1))
    thread = threading.Thread(target=follower.run, args=(stop,), daemon=True)
    with capture_logs() as logged:
        thread.start()
        wait_until(lambda: any(line["action"] == "presence_followed" for line in logged), 10, what="the events")
    yield thread
    stop.set()
    thread.join(ample(5))
    assert not thread.is_alive()


@pytest.fixture
def matched(api: Api) -> Callable[[Wallet], bool]:
    """Whether a machine would get a task."""
    workers = api.services.store.workers
    return lambda wallet: wallet in {worker.wallet for worker in workers.with_free_slots(0.0, 10)}


def work(api: Api, access: BrokerAccess) -> amqp.Connection:
    """A machine's connection that consumes its queue."""
    facts = ChainFacts(2, NRlc(0), Wei(1), funded=True)
    wallet = wallet_of_user(access.vhost, access.username)
    assert wallet is not None
    api.services.store.workers.store_facts([(wallet, facts)], api.clock())
    connection = connect(access)
    connection.channel().basic_consume(access.compute_queue, no_ack=True)
    return connection


def test_a_machine_that_is_cut_off_gets_no_task_until_it_is_back(
    api: Api, followed: threading.Thread, matched: Callable[[Wallet], bool], returned: list[int]
) -> None:
    access = api.sign_in(WORKER).broker
    connection = work(api, access)
    assert matched(WORKER.wallet)
    # As by a network that is gone: no goodbye.
    connection.transport.sock.close()
    wait_until(lambda: not matched(WORKER.wallet), 2, what="the cut to be noticed")
    assert not returned
    with connect(access) as without_consumer:
        assert without_consumer.connected
        assert not matched(WORKER.wallet)
    back = work(api, access)
    wait_until(lambda: matched(WORKER.wallet), 2, what="the return to be noticed")
    wait_until(lambda: returned, 2, what="tasks to be matched again")
    # A machine whose queues are taken away is no machine to send to either.
    api.services.broker.remove(WORKER.wallet)
    wait_until(lambda: not matched(WORKER.wallet), 2, what="the lost queue to be noticed")
    with suppress(OSError, amqp.exceptions.AMQPError):
        back.close()
    assert followed.is_alive()


@contextmanager
def dropped(port: int) -> Iterator[None]:
    """All packets from and to a local port are dropped in the block, and nobody is told."""
    rules = [("OUTPUT", "-p", "tcp", way, str(port), "-j", "DROP") for way in ("--sport", "--dport")]
    for chain, *rule in rules:
        partition._iptables("-I", chain, *rule)
    try:
        yield
    finally:
        for chain, *rule in rules:
            partition._iptables("-D", chain, *rule)


@pytest.mark.skipif(not partition.possible(), reason="a partition needs root and iptables")
def test_a_machine_whose_network_drops_everything_gets_no_task_long_before_its_heartbeat_is_missed(
    api: Api, followed: threading.Thread, matched: Callable[[Wallet], bool]
) -> None:
    """Its kernel is silent. The connection has no heartbeat, so nothing else would tell."""
    access = api.sign_in(WORKER).broker
    connection = work(api, access)
    assert matched(WORKER.wallet)
    with dropped(connection.transport.sock.getsockname()[1]):
        silent = (QUESTIONS * INTERVAL_SECONDS + IDLE_SECONDS) + SILENT_MS / 1000
        wait_until(lambda: not matched(WORKER.wallet), silent, what="the silence to be noticed")
        connection.collect()
    with work(api, access):
        wait_until(lambda: matched(WORKER.wallet), 2, what="the return to be noticed")


def test_a_machine_that_only_tries_its_password_or_keeps_a_consumer_stays(
    api: Api, followed: threading.Thread, matched: Callable[[Wallet], bool]
) -> None:
    access, other = api.sign_in(WORKER).broker, api.sign_in(STRANGER).broker
    with work(api, access) as held, work(api, access) as second:
        for _ in range(3):
            connect(access).close()
        second.channel().basic_cancel(second.channel().basic_consume(access.compute_queue))
        second.close()
        # Events come in order: what is told of another machine comes after all of the above.
        work(api, other).close()
        wait_until(lambda: not matched(STRANGER.wallet), 2, what="the other's cut to be noticed")
        assert matched(WORKER.wallet)
        assert held.connected
    assert followed.is_alive()


def test_a_machine_that_was_cut_off_while_events_were_not_followed_is_looked_at(
    api: Api, matched: Callable[[Wallet], bool], returned: list[int], request: pytest.FixtureRequest
) -> None:
    access = api.sign_in(WORKER).broker
    with work(api, access):
        api.services.store.workers.mark_connected({WORKER.wallet: False}, api.clock())
        assert not matched(WORKER.wallet)
        request.getfixturevalue("followed")
        wait_until(lambda: matched(WORKER.wallet), 2, what="its consumer to be found")


def test_a_ping_outweighs_a_cut_only_when_that_is_long_ago(api: Api, matched: Callable[[Wallet], bool]) -> None:
    session: Session = api.sign_in(WORKER)
    work(api, session.broker).close()
    workers = api.services.store.workers
    workers.mark_connected({WORKER.wallet: False}, api.clock())
    api.ping(session)
    assert not matched(WORKER.wallet)
    api.clock.ahead = DISCONNECTED_SECONDS + 1
    api.ping(session)
    assert matched(WORKER.wallet)
    workers.mark_connected({WORKER.wallet: False}, api.clock())
    api.sign_in(WORKER)
    assert matched(WORKER.wallet)


def test_a_broker_without_the_plugin_is_said_once_and_changes_nothing(
    api: Api, matched: Callable[[Wallet], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "EXCHANGE", "amq.rabbitmq.absent")
    monkeypatch.setattr(presence, "ABSENT_SECONDS", 0.0)
    stop, tries = threading.Event(), 0

    def count(seconds: float | None = None) -> bool:
        nonlocal tries
        tries += 1
        if tries >= 3:
            stop.set()
        return stop.is_set()

    monkeypatch.setattr(stop, "wait", count)
    with work(api, api.sign_in(WORKER).broker), capture_logs() as logged:
        Presence(pool_app(api.settings), api.settings.amqp_pool_vhost, api.services.store.workers, lambda: None).run(
            stop
        )
    (line,) = logged
    assert line["action"] == "presence_by_pings"
    assert "rabbitmq-plugins enable rabbitmq_event_exchange" in line["fix"]
    assert matched(WORKER.wallet)
    assert not api.services.broker.tells_of_cuts()


def test_a_broker_that_is_away_is_asked_again(api: Api) -> None:
    stop, settings = threading.Event(), read_settings(amqp_url="amqp://u:p@127.0.0.1:1")
    follower = Presence(pool_app(settings), "pool", api.services.store.workers, lambda: None)
    with capture_logs() as logged:
        thread = threading.Thread(target=follower.run, args=(stop,), daemon=True)
        thread.start()
        wait_until(lambda: logged, 10, what="the first try")
        stop.set()
        thread.join(ample(5))
    assert {line["action"] for line in logged} == {"presence_again"}
