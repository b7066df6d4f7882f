"""Several messages are published before the first confirmation is waited for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipeline.broker import together as publishing
from pipeline.broker.together import Publish, Together

SECONDS = 60.0


class Broker:
    """A connection with one channel. `says`: what the broker sends, one for each time that it is waited for.

    `log`: `publish` and `wait`, in order.
    """

    def __init__(self) -> None:
        self.events: dict[str, set[Callable[..., None]]] = defaultdict(set)
        self.says: list[tuple[str, Sequence[Any]]] = []
        self.log: list[str] = []

    def channel(self) -> Broker:
        return self

    def confirm_select(self) -> None:
        """As a channel does."""

    def drain_events(self, timeout: float) -> None:
        assert timeout == SECONDS
        self.log.append("wait")
        if not self.says:
            raise TimeoutError
        event, told = self.says.pop(0)
        (handler,) = self.events[event]
        handler(*told)

    def message(self) -> Publish:
        return lambda _: self.log.append("publish")


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def together(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Together:
    monkeypatch.setattr(publishing, "Producer", lambda channel: channel)
    return Together(broker, SECONDS)


def test_all_are_published_before_one_is_waited_for(broker: Broker, together: Together) -> None:
    broker.says = [("basic_ack", (2, True)), ("basic_ack", (3, False))]
    assert together.send([broker.message()] * 3) == ([True] * 3, set())
    assert broker.log == ["publish"] * 3 + ["wait"] * 2
    broker.says = [("basic_ack", (5, True))]
    assert together.send([broker.message()] * 2) == ([True] * 2, set()), "numbers go on from one call to the next"


def test_what_the_broker_refuses_is_not_confirmed(broker: Broker, together: Together) -> None:
    broker.says = [("basic_ack", (1, False)), ("basic_nack", (3, True)), ("basic_ack", (4, False))]
    assert together.send([broker.message()] * 4)[0] == [True, False, False, True]
    broker.says = [("basic_ack", (5, False))]
    assert together.send([broker.message()])[0] == [True]


def test_one_without_a_queue_is_named_by_where_it_should_have_gone(broker: Broker, together: Together) -> None:
    broker.says = [("basic_return", (None, "w.a", "w.a.tx", None)), ("basic_ack", (2, True))]
    assert together.send([broker.message()] * 2) == ([True, True], {("w.a", "w.a.tx")})
    broker.says = [("basic_ack", (3, True))]
    assert together.send([broker.message()]) == ([True], set())


def test_a_broker_that_confirms_nothing_is_waited_for_once(broker: Broker, together: Together) -> None:
    broker.says = [("basic_ack", (1, False))]
    with pytest.raises(TimeoutError):
        together.send([broker.message()] * 2)
    assert broker.log.count("wait") == 2


def test_no_more_than_so_many_are_on_their_way(
    broker: Broker, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MOST", 2)
    broker.says = [("basic_ack", (number, False)) for number in (1, 2, 3)]
    together.send([broker.message()] * 3)
    assert broker.log == ["publish", "publish", "wait", "publish", "wait", "wait"]
