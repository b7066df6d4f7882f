"""How long one answer may take, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice, repeat

import httpcore
import pytest

from config.connections.limited_network import AnswerTime, LimitedNetwork

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n"


class Peer(httpcore.NetworkBackend):
    """Answers in `pieces`, each after a second of its own clock, and keeps the time-outs of its reads."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.now, self.waits = 0.0, list[float | None]()
        self._pieces = iter(pieces)

    def connect_tcp(self, *_: object, **__: object) -> httpcore.NetworkStream:
        return Line(self)

    def read(self, timeout: float | None) -> bytes:
        self.waits.append(timeout)
        self.now += 1.0
        return next(self._pieces)


class Line(httpcore.NetworkStream):
    """A connection to a Peer."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._peer.read(timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All of it arrives."""

    def close(self) -> None:
        """Nothing to close."""

    def get_extra_info(self, info: str) -> object:
        return None


def connected(peer: Peer) -> httpcore.ConnectionPool:
    network = LimitedNetwork(lambda: AnswerTime(lambda: 10.0, lambda: peer.now), peer)
    return httpcore.ConnectionPool(network_backend=network)


def ask(pool: httpcore.ConnectionPool) -> bytes:
    return pool.request("GET", "http://peer.example/", extensions={"timeout": {"read": 5.0}}).content


@pytest.mark.parametrize(
    "answer",
    [
        chain([HEAD], repeat(b"x")),
        chain([b"HTTP/1.1 200 OK\r\nx: "], repeat(b"x")),
        repeat(b"H"),
        repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["body", "header", "first line", "answers before the answer"],
)
def test_an_answer_that_drips_is_over_when_its_time_is(answer: Iterable[bytes]) -> None:
    # All of it would come in the end, or be more than any header may be.
    peer = Peer(islice(answer, 40))
    with connected(peer) as pool, pytest.raises(httpcore.ReadTimeout, match="did not end within 10 s"):
        ask(pool)
    assert peer.now == 11.0
    # The silence before the first bytes counts by itself; later reads wait for what is left.
    assert (peer.waits[0], peer.waits[-1]) == (5.0, 1.0)


def test_each_answer_on_a_connection_has_its_own_time() -> None:
    peer = Peer([HEAD, b"a" * 10, b"b" * 10, b"c" * 10] * 9)
    with connected(peer) as pool:
        assert {ask(pool) for _ in range(9)} == {b"a" * 10 + b"b" * 10 + b"c" * 10}
    assert peer.now == 36.0
