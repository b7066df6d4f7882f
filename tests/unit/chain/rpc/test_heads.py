from __future__ import annotations

import threading

from chain.rpc.heads import heads
from chain.testing import FakeChain
from protocol.types import Contract

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
