"""Unit tests cannot reach the network."""

from __future__ import annotations

import asyncio
import socket

import pytest


def test_a_unit_test_that_connects_fails() -> None:
    with socket.socket() as outside, pytest.raises(pytest.fail.Exception, match="opened a socket"):
        outside.connect(("127.0.0.1", 9))


def test_a_unit_test_that_asks_for_a_name_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="opened a socket"):
        socket.getaddrinfo("localhost", 80)


def test_an_event_loop_still_runs() -> None:
    async def answer() -> int:
        return 42

    assert asyncio.run(answer()) == 42
