"""What presence makes of RabbitMQ's events, which name whatever queues there are on the broker."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker import presence
from pipeline.broker.presence import Presence
from pipeline.store.machine.workers import Workers
from protocol.types import Wallet

WALLET, OTHER = Wallet("0x" + "a" * 40), Wallet("0x" + "b" * 40)


class Marked:
    """Stands for the store: notes what is marked."""

    def __init__(self) -> None:
        self.marks: list[dict[Wallet, bool]] = []
        self.gone = self.returned = 0

    def present(self, limit: int) -> list[Wallet]:
        return [WALLET, OTHER][:limit]

    def mark_connected(self, connected: Mapping[Wallet, bool], now: float) -> tuple[int, int]:
        self.marks.append(dict(connected))
        return self.gone, self.returned


@pytest.fixture
def marked() -> Marked:
    return Marked()


def follower(marked: Marked, monkeypatch: pytest.MonkeyPatch, back: list[int]) -> Presence:
    """One for vhost `pool`, whose machines all have no consumer."""
    monkeypatch.setattr(Presence, "_connected", lambda _, wallets: dict.fromkeys(wallets, False))
    return Presence(Celery(), "pool", cast("Workers", marked), lambda: back.append(1))


def event(**headers: object) -> Any:
    return SimpleNamespace(headers=headers)


def test_a_machine_is_looked_at_once_however_many_consumers_its_owner_makes_and_cancels(
    marked: Marked, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("pipeline.broker.presence.time", SimpleNamespace(monotonic=lambda: now))
    followed = follower(marked, monkeypatch, [])
    for _ in range(100):
        followed._note(event(queue=f"w.{WALLET}", vhost="pool"))
        followed._look()
    followed._note(event(queue=f"w.{OTHER}", vhost="pool"))
    followed._look()
    assert marked.marks == [{WALLET: False}, {OTHER: False}]
    now += presence.LOOK_SECONDS
    followed._look()
    # The last event is never lost.
    assert marked.marks[2:] == [{WALLET: False}]
    followed._look()
    assert len(marked.marks) == 3


def test_tasks_are_matched_again_when_a_machine_is_back_and_only_then(
    marked: Marked, monkeypatch: pytest.MonkeyPatch
) -> None:
    back: list[int] = []
    followed = follower(marked, monkeypatch, back)
    followed._note(event(name=f"w.{WALLET}", vhost="pool"))
    followed._look()
    assert not back
    marked.returned = 1
    followed._note(event(queue=f"w.{OTHER}", vhost="pool"))
    followed._look()
    assert back == [1]


@pytest.mark.parametrize(("gone", "returned", "told"), [(1, 0, 1), (0, 1, 1), (0, 0, 0)])
def test_offers_are_decided_anew_when_a_machine_went_or_came_and_only_then(
    marked: Marked, monkeypatch: pytest.MonkeyPatch, gone: int, returned: int, told: int
) -> None:
    monkeypatch.setattr(Presence, "_connected", lambda _, wallets: dict.fromkeys(wallets, False))
    changes: list[int] = []
    followed = Presence(Celery(), "pool", cast("Workers", marked), lambda: None, on_change=lambda: changes.append(1))
    marked.gone, marked.returned = gone, returned
    followed._note(event(queue=f"w.{WALLET}", vhost="pool"))
    followed._look()
    assert len(changes) == told


def test_machines_that_are_not_back_when_the_broker_is_are_looked_at_once_more_before_they_are_marked(
    marked: Marked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cut this process off cut them off too. Marked at once, they took all orders off the market with them."""
    now, here = 100.0, {WALLET: False, OTHER: False}
    monkeypatch.setattr("pipeline.broker.presence.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(Presence, "_connected", lambda _, wallets: {wallet: here[wallet] for wallet in wallets})
    followed = Presence(Celery(), "pool", cast("Workers", marked), lambda: None)
    followed._begin()
    followed._look()
    assert not any(marked.marks)
    here[WALLET] = True
    now += presence.SECOND_LOOK_SECONDS - 1
    followed._look()
    assert not any(marked.marks)
    now += 1
    followed._look()
    assert [mark for mark in marked.marks if mark] == [{WALLET: True, OTHER: False}]
    now += presence.SECOND_LOOK_SECONDS
    followed._look()
    assert len([mark for mark in marked.marks if mark]) == 1


def test_a_machine_that_is_cut_off_while_the_events_are_followed_is_marked_at_once(
    marked: Marked, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("pipeline.broker.presence.time", SimpleNamespace(monotonic=lambda: now))
    followed = follower(marked, monkeypatch, [])
    followed._begin()
    followed._look()
    now += 1
    followed._note(event(queue=f"w.{WALLET}", vhost="pool"))
    followed._look()
    assert [mark for mark in marked.marks if mark] == [{WALLET: False}]


WORDS = st.one_of(
    st.none(),
    st.integers(),
    st.binary(),
    st.text(),
    st.sampled_from([f"w.{WALLET}.tx", f"w.{WALLET.upper()}", f"x.w.{WALLET}", f"w.{WALLET}\n", "w.", "pipeline"]),
    st.lists(st.text(), max_size=2),
)


@given(headers=st.one_of(st.none(), st.dictionaries(st.sampled_from(["queue", "name", "vhost", "x"]), WORDS)))
def test_events_about_anything_else_are_passed_over(headers: dict[str, Any] | None) -> None:
    followed = Presence(Celery(), "pool", cast("Workers", Marked()), lambda: None)
    followed._note(SimpleNamespace(headers=headers))
    if headers:
        followed._note(SimpleNamespace(headers=headers | {"vhost": "pool"}))
        followed._note(SimpleNamespace(headers={**headers, "queue": f"w.{WALLET}", "vhost": "another"}))
    assert not followed._due
