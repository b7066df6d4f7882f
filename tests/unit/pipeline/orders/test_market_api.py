"""What one market may make a run of the pool's orders do: wait so long, and read such text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pipeline.flow.orders.market_api import SILENT_SECONDS, TURN_SECONDS, MarketApi
from protocol.errors import MarketRefused, MarketUnavailable
from protocol.ethereum.signing import Key
from protocol.market import challenge_typed_data
from protocol.types import Hash32

CHAIN = 134
ORDER = Hash32("0x" + "ab" * 32)


class Trickle(httpx.SyncByteStream):
    """A body without an end, of a byte a second."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self._market.now += 1.0
            yield b" "


class Market:
    """Answers each request with `answer`, after `seconds` by its own clock."""

    def __init__(self, answer: httpx.Response | None = None, seconds: float = 0.0) -> None:
        self.now, self.asked = 0.0, list[httpx.Request]()
        self._answer, self._seconds = answer or httpx.Response(200, stream=Trickle(self)), seconds
        transport = httpx.MockTransport(self._serve)
        key = Key.from_hex("11" * 32)
        self.api = MarketApi("http://127.0.0.1", CHAIN, key, clock=lambda: self.now, transport=transport)

    def _serve(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        self.now += self._seconds
        return self._answer


def test_a_market_that_sends_a_byte_now_and_then_is_left_when_its_turn_is_over_and_asked_nothing_more() -> None:
    market = Market()
    with pytest.raises(MarketUnavailable, match="too slowly"):
        market.api.status(ORDER)
    assert (market.now <= TURN_SECONDS + 1, market.api.has_time) == (True, False)
    with pytest.raises(MarketUnavailable, match="too slowly"):
        market.api.status(ORDER)
    assert len(market.asked) == 1


def test_whole_answers_too_use_up_a_markets_turn_and_none_is_awaited_beyond_it() -> None:
    market = Market(httpx.Response(200, json={"ok": True, "orderHash": ORDER, "status": "open"}), TURN_SECONDS / 3)
    waits = []
    while market.api.has_time:
        market.api.status(ORDER)
        waits.append(market.asked[-1].extensions["timeout"]["read"])
    assert waits == pytest.approx([SILENT_SECONDS, SILENT_SECONDS, TURN_SECONDS / 3])


@pytest.mark.parametrize("error", [r"\ud800", r"\u001b[31mno", "no " * 1000], ids=["half", "control", "long"])
def test_a_refusal_is_told_in_text_that_can_be_stored_and_shown(error: str) -> None:
    content = b'{"ok":false,"error":"%s"}' % error.encode()
    market = Market(httpx.Response(403, content=content))
    with pytest.raises(MarketRefused) as refused:
        market.api.unpublish(ORDER)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_a_challenge_with_half_a_character_is_an_answer_that_decides_nothing() -> None:
    data: Any = challenge_typed_data(CHAIN, "x")
    content = httpx.Response(200, json={"ok": True, "data": data}).content.replace(b'"x"', rb'"\ud800"')
    market = Market(httpx.Response(200, content=content))
    with pytest.raises(MarketUnavailable, match="something else than a sign-in"):
        market.api.unpublish(ORDER)
    assert [request.method for request in market.asked] == ["GET"]
