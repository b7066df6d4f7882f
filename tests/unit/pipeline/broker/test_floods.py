"""Machines that fill RabbitMQ's memory: who is cut off, and how often RabbitMQ is asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.floods import GROWN_BYTES, LOOKS, MACHINE_BYTES, Floods
from protocol.types import Wallet

BUSY, HOSTILE = Wallet("0x" + "11" * 20), Wallet("0x" + "22" * 20)
AT_REST = 200 * 2**20


@dataclass
class Broker:
    """A RabbitMQ as its management API tells of it."""

    used: int = AT_REST
    sent: Counter[Wallet] = field(default_factory=Counter)
    listed: int = 0

    def memory(self) -> int:
        return self.used

    def sent_by_machines(self) -> Counter[Wallet]:
        self.listed += 1
        return self.sent

    def revoke(self, wallet: Wallet) -> None:
        self.used -= self.sent.pop(wallet)


def settled(broker: Broker) -> Floods:
    """Floods that have looked often enough at a broker at rest."""
    floods = Floods(cast("BrokerAdmin", broker))
    for _ in range(LOOKS):
        floods.look()
    broker.listed = 0
    return floods


def test_the_machine_that_filled_the_memory_is_cut_off_and_no_other() -> None:
    broker = Broker(sent=Counter({BUSY: MACHINE_BYTES // 2}))
    floods = settled(broker)
    broker.sent[HOSTILE] = 2 * GROWN_BYTES
    broker.used += broker.sent[HOSTILE]
    assert floods.look() == [HOSTILE]
    assert (set(broker.sent), broker.used) == ({BUSY}, AT_REST)


def test_a_flood_that_the_statistics_do_not_have_yet_is_seen_at_the_next_look() -> None:
    broker = Broker()
    floods = settled(broker)
    broker.used += 2 * GROWN_BYTES
    assert floods.look() == []
    broker.sent[HOSTILE] = 2 * GROWN_BYTES
    assert floods.look() == [HOSTILE]


def test_one_that_was_there_before_the_scheduler_started_is_cut_off() -> None:
    broker = Broker(AT_REST, Counter({HOSTILE: MACHINE_BYTES + 1}))
    assert Floods(cast("BrokerAdmin", broker)).look() == [HOSTILE]


def test_connections_are_not_listed_while_the_memory_moves_by_as_little_as_it_does_by_itself() -> None:
    broker = Broker()
    floods = settled(broker)
    for moved in (GROWN_BYTES // 2, -GROWN_BYTES // 2, GROWN_BYTES // 2):
        broker.used = AT_REST + moved
        assert floods.look() == []
    assert broker.listed == 0


def test_they_are_listed_a_few_times_after_each_growth_and_not_again() -> None:
    broker = Broker()
    floods = settled(broker)
    broker.used += 2 * GROWN_BYTES
    for _ in range(3 * LOOKS):
        floods.look()
    assert broker.listed == LOOKS
