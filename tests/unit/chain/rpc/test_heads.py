"""New heads from polling and from a subscription: repeats, stops and missed blocks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from chain.rpc import heads as module
from chain.rpc.announced import Announced, OnHeader
from chain.rpc.heads import heads
from chain.testing import FakeChain
from protocol.types import BlockNumber, Contract

HUB = Contract("0x" + "cc" * 20)
#: Seconds between blocks in these tests: polling is as fast as it gets.
BLOCK_TIME = 0.01


def test_the_present_head_comes_at_once() -> None:
    chain = FakeChain(HUB)
    chain.mine(empty=4)

    assert next(heads(None, chain, BLOCK_TIME, threading.Event())) == 5


def test_polling_sees_new_blocks() -> None:
    chain = FakeChain(HUB)
    found = heads(None, chain, BLOCK_TIME, threading.Event())
    next(found)

    chain.mine(empty=2)

    assert next(found) == 3


def test_a_stop_ends_the_wait_at_once() -> None:
    stop = threading.Event()
    found = heads(None, FakeChain(HUB), 60.0, stop)
    next(found)

    stop.set()

    assert list(found) == []


def test_a_node_that_does_not_answer_is_asked_again() -> None:
    chain = FakeChain(HUB)
    asked = 0

    def thaw_at_third(_: str) -> None:
        nonlocal asked
        asked += 1
        chain.frozen = asked < 3

    chain.before_answer = thaw_at_third

    assert next(heads(None, chain, BLOCK_TIME, threading.Event())) == 0
    assert asked == 3


def test_what_a_subscription_announced_before_it_missed_a_block_is_gone_when_that_block_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain, announced = FakeChain(HUB), Announced()

    @contextlib.contextmanager
    def announces_one_and_is_silent(_: str, __: threading.Event, on_header: OnHeader) -> Iterator[Any]:
        def next_head(_: float) -> BlockNumber | None:
            if chain.head > 0:
                chain.mine()
                return None
            chain.mine()
            chain.announce(on_header, chain.head)
            return chain.head

        yield SimpleNamespace(next_head=next_head)

    monkeypatch.setattr(module, "subscribe", announces_one_and_is_silent)
    found = heads("ws://node", chain, BLOCK_TIME, threading.Event(), announced)

    assert [next(found), next(found), next(found)] == [0, 0, 1]
    assert announced.between(BlockNumber(1), BlockNumber(1)) != []
    assert next(found) == 2, "asked for, since nothing was announced"
    assert announced.take() is None, "it is of block 1"
