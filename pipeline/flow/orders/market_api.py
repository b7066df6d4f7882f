"""iExec's market API, as far as the pool's own orders go: is one listed, publish it, unpublish it.

Each answer is yes, no or unknown. No is a JSON answer of the API itself that says no (MarketRefused). All else is
unknown (MarketUnavailable): an error of a server or proxy, a limit of requests, an answer that is cut short, too slow,
too long or not the API's JSON. What was asked for may then have been done or not.

    GET /challenge ──► sign ──► POST, PUT /workerpoolorders     a challenge is good for one request
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from config.connections.http_client import http_client
from protocol.errors import BadMessage, MarketRefused, MarketUnavailable
from protocol.ethereum.signing import Key
from protocol.market import sign_in
from protocol.poco.orders import WorkerpoolOrder
from protocol.types import Hash32

#: Seconds of silence, and bytes of one answer: some hundred that take milliseconds.
SILENT_SECONDS, MOST_BYTES = 5.0, 2**20
#: Seconds for all requests to one market in one run, after which it has its next turn in another run: two markets that
#: are too slow, and their silence, leave time for the rest within the limit of a run.
TURN_SECONDS = 10.0
#: Characters of an answer that an error repeats.
WORDS = 200
#: HTTP statuses of an answer that says no; and the one for a signed challenge that the API does not know.
_NO = (httpx.codes.BAD_REQUEST, httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND)
_NOT_SIGNED_IN = "invalid authorization"
_TOO_SLOW = "its answers come too slowly"
#: Statuses of an order: one that can be bought, and one that the API no longer lists and can list again.
OPEN, DEAD = "open", "dead"


class MarketApi:
    """One run's requests to the market API at one address. All methods raise MarketUnavailable."""

    def __init__(
        self,
        url: str,
        chain_id: int,
        key: Key,
        *,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`key`: of the workerpool's owner, who signs in; `clock` (seconds), `transport`: for tests."""
        self._url, self._chain_id, self._key, self._clock = url, chain_id, key, clock
        self._left = TURN_SECONDS
        headers = {"accept": "application/json"}
        self._http = http_client(
            url, timeout=SILENT_SECONDS, headers=headers, answer_seconds=lambda: self._left, transport=transport
        )

    @property
    def has_time(self) -> bool:
        """Whether there is time for another request in this run."""
        return self._left > 0

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def status(self, order_hash: Hash32) -> str | None:
        """The order's status at the market, `open` among others; None: the market does not have it."""
        try:
            found = self._ask("GET", f"/workerpoolorders/{order_hash}")
        except MarketRefused as error:
            if error.fields["status"] == httpx.codes.NOT_FOUND:
                return None
            raise self._unknown(str(error)) from error
        if not isinstance(found.get("status"), str) or found.get("orderHash") != order_hash:
            raise self._unknown("its answer is about another order, or about none")
        return str(found["status"])

    def publish(self, order: WorkerpoolOrder, order_hash: Hash32) -> None:
        """Have the market list the order. Raises MarketRefused."""
        published = self._signed_in("POST", {"order": order.to_json()}).get("published")
        if not isinstance(published, Mapping) or published.get("orderHash") != order_hash:
            raise self._unknown("it does not tell that it has published the order")

    def unpublish(self, order_hash: Hash32) -> None:
        """Unpublish the order. Raises MarketRefused, also if the market does not list it."""
        wanted = {"target": "unpublish_orderHash", "orderHash": order_hash}
        unpublished = self._signed_in("PUT", wanted).get("unpublished")
        if not isinstance(unpublished, list) or order_hash not in unpublished:
            raise self._unknown("it does not tell that it has unpublished the order")

    def _signed_in(self, method: str, body: Mapping[str, object]) -> Mapping[str, Any]:
        """The answer to a request of the workerpool's owner. Raises MarketRefused."""
        for again in (True, False):
            challenge = self._ask("GET", "/challenge", address=self._key.wallet).get("data")
            try:
                authorization = sign_in(self._key, self._chain_id, challenge if isinstance(challenge, Mapping) else {})
            except BadMessage as error:
                raise self._unknown(str(error)) from error
            try:
                return self._ask(method, "/workerpoolorders", body, authorization)
            except MarketRefused as error:
                if error.fields["why"] != _NOT_SIGNED_IN:
                    raise
                # Another process of the pool has used up the challenge, which is one for all requests of an address.
                if not again:
                    raise self._unknown(_NOT_SIGNED_IN) from error
        raise AssertionError

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        authorization: str | None = None,
        **query: str,
    ) -> Mapping[str, Any]:
        """The JSON object of one answer. Raises MarketRefused, with the answer's `status`."""
        params = {"chainId": str(self._chain_id), **query}
        headers = {} if authorization is None else {"authorization": authorization}
        if not self.has_time:
            raise self._unknown(_TOO_SLOW)
        begun, wait = self._clock(), min(SILENT_SECONDS, self._left)
        try:
            with self._http.stream(method, path, params=params, json=body, headers=headers, timeout=wait) as answer:
                content = self._read(answer, begun + self._left)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unknown(str(error) or type(error).__name__) from error
        finally:
            self._left -= self._clock() - begun
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and answer.is_success and found.get("ok") is True:
            return found
        if isinstance(found, dict) and answer.status_code in _NO and isinstance(found.get("error"), str):
            raise MarketRefused(why=_plain(found["error"]), status=answer.status_code)
        raise self._unknown(f"it answered HTTP {answer.status_code}: {content[:WORDS].decode(errors='replace')!r}")

    def _read(self, answer: httpx.Response, until: float) -> bytes:
        """The body of an answer, within bounds. `until`: by the clock."""
        content = b""
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > MOST_BYTES:
                raise self._unknown("its answer is too long")
            if self._clock() > until:
                raise self._unknown(_TOO_SLOW)
        return content

    def _unknown(self, why: str) -> MarketUnavailable:
        """The error for an answer that says neither yes nor no."""
        return MarketUnavailable(what=f"The market API at {self._url}", why=why)


def _plain(text: str) -> str:
    """The beginning of a text, with unprintable characters replaced: JSON may hold a lone surrogate, which MongoDB and
    terminals refuse.
    """
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:WORDS])
