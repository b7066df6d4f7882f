"""A stand-in of iExec's market API on loopback. It checks workerpool orders by the real contract's views.

It asks, refuses and answers as iexec-market-api 7.1.2 does (`services/auth.js`, `services/order.js`), and can be told
to fail before or after it has done what was asked for.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from chain.contracts.contract import Abi, checksummed, contract
from chain.contracts.hub import Hub
from chain.rpc.client import JsonRpc
from protocol.errors import Refused
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.signing import recover_typed_data_wallet
from protocol.ethereum.typed_data import TypedData, typed_data_digest
from protocol.poco.orders import WorkerpoolOrder
from protocol.types import Contract, Hash32, Signature, Wallet
from tests.faulty import Answer, Fault, HangUp
from tests.faulty.http import Handler, beside

#: As the market has it: 30 % of the price of each task must be free in the owner's account.
STAKE_PERCENT = 30


class _No(Exception):
    """The market says no, with an HTTP status."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error


@dataclass
class Market:
    """What the market has. `log`: what it did, in order: (published, hash), (unpublished, hash), (refused, why)."""

    rpc: JsonRpc
    hub: Contract
    chain_id: int
    url: str = ""
    orders: dict[Hash32, WorkerpoolOrder] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    #: Orders that it has put away, as it does when the owner's stake no longer covers them.
    dead: set[Hash32] = field(default_factory=set)
    #: Tasks that could be bought here after each publication, by the contract's account.
    offered: list[int] = field(default_factory=list)
    #: While set, the answer to every request.
    down: Fault | None = None
    #: What the next requests of a method get: before it is done, or after.
    before: dict[str, list[Fault]] = field(default_factory=dict)
    after: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    _challenges: dict[Wallet, str] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._contract = contract(self.rpc, Abi.HUB, self.hub, "verifySignature", "viewConsumed")

    # -- what tests look at ----------------------------------------------------------------------------------------

    def listed(self) -> list[WorkerpoolOrder]:
        """The orders that can be bought here now: neither put away, used up nor closed on chain."""
        with self._lock:
            return [
                order
                for order_hash, order in self.orders.items()
                if order_hash not in self.dead and self._left(order_hash, order)
            ]

    def count(self, what: str) -> int:
        """How often it did this."""
        return sum(did == what for did, _ in self.log)

    # -- the API ---------------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, authorization: str, body: bytes) -> Fault:
        """The answer to one request."""
        with self._lock:
            path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
            name = f"{method} {path.split('/')[1]}"
            self.requests.append(name)
            fault = self.down or next(iter(self.before.get(name, [])), None)
            if fault is not None:
                if self.down is None:
                    self.before[name].pop(0)
                return fault
            try:
                done = self._do(method, path, query, authorization, body)
            except _No as error:
                self.log.append(("refused", error.error))
                return _json(error.status, {"ok": False, "error": error.error})
            late = next(iter(self.after.get(name, [])), None)
            if late is not None:
                self.after[name].pop(0)
                return late
            return _json(200, {"ok": True, **done})

    def _do(
        self, method: str, path: str, query: dict[str, list[str]], authorization: str, body: bytes
    ) -> dict[str, Any]:
        if query.get("chainId") != [str(self.chain_id)]:
            raise _No(400, "chainId is not supported")
        match method, path.split("/")[1:]:
            case "GET", ["challenge"]:
                return {"data": self._challenge(Wallet(query["address"][0].lower()))}
            case "GET", ["workerpoolorders", order_hash]:
                return self._show(Hash32(order_hash))
            case "POST", ["workerpoolorders"]:
                return self._publish(self._signed_in(authorization), json.loads(body)["order"])
            case "PUT", ["workerpoolorders"]:
                return self._unpublish(self._signed_in(authorization), json.loads(body))
        raise _No(404, "not found")

    def _challenge(self, wallet: Wallet) -> TypedData:
        text = self._challenges.setdefault(wallet, secrets.token_urlsafe(24))
        return {
            "types": {
                "EIP712Domain": [
                    {"name": "name", "type": "string"},
                    {"name": "version", "type": "string"},
                    {"name": "chainId", "type": "uint256"},
                ],
                "Challenge": [{"name": "challenge", "type": "string"}],
            },
            # As the API does, which keeps the chain id of the query.
            "domain": {"name": "iExec Gateway", "version": "1", "chainId": str(self.chain_id)},
            "primaryType": "Challenge",
            "message": {"challenge": f"Sign this message to log into iExec Gateway: {text}"},
        }

    def _signed_in(self, authorization: str) -> Wallet:
        digest, signature, address = (*authorization.split("_"), "", "")[:3]
        wallet = Wallet(address.lower())
        if wallet not in self._challenges:
            raise _No(403, "invalid authorization")
        challenge = self._challenge(wallet)
        try:
            signer = recover_typed_data_wallet(challenge, Signature(signature))
        except Refused as error:
            raise _No(403, "invalid authorization") from error
        if signer != wallet or digest != to_hex(typed_data_digest(challenge)):
            raise _No(403, "invalid authorization")
        del self._challenges[wallet]
        return wallet

    def _publish(self, signer: Wallet, data: dict[str, Any]) -> dict[str, Any]:
        order = WorkerpoolOrder.from_json(data)
        order_hash = order.order_hash(self.chain_id, self.hub)
        if order_hash in self.orders and order_hash not in self.dead:
            raise _No(403, "order already published")
        owner = Hub(self.rpc, self.hub).workerpool(order.workerpool).owner
        if owner != signer:
            raise _No(403, f"only order signer {owner} can publish an order")
        sign, digest = to_bytes(order.sign), to_bytes(order_hash)
        if not self._contract.functions.verifySignature(checksummed(owner), digest, sign).call():
            raise _No(403, "invalid sign")
        left = self._left(order_hash, order)
        if not left:
            raise _No(403, "order already consumed")
        stake = Hub(self.rpc, self.hub).account(owner).stake
        if stake < order.workerpoolprice * STAKE_PERCENT // 100 * left:
            raise _No(403, "workerpool owner's stake is too low to cover required workerpool lock")
        self.orders[order_hash] = order
        self.dead.discard(order_hash)
        self.log.append(("published", order_hash))
        self.offered.append(sum(self._left(key, each) for key, each in self.orders.items()))
        return {"published": {"orderHash": order_hash, "status": "open", "order": data}}

    def _unpublish(self, signer: Wallet, wanted: dict[str, Any]) -> dict[str, Any]:
        order_hash = Hash32(wanted["orderHash"])
        order = self.orders.get(order_hash)
        if (
            wanted["target"] != "unpublish_orderHash"
            or order_hash in self.dead
            or not order
            or not self._left(order_hash, order)
        ):
            raise _No(403, f"workerpoolorder with orderHash {order_hash} is not published")
        if Hub(self.rpc, self.hub).workerpool(order.workerpool).owner != signer:
            raise _No(403, "only order signer can unpublish an order")
        del self.orders[order_hash]
        self.log.append(("unpublished", order_hash))
        return {"unpublished": [order_hash]}

    def _show(self, order_hash: Hash32) -> dict[str, Any]:
        order = self.orders.get(order_hash)
        if order is None:
            raise _No(404, "workerpoolorder not found")
        left = self._left(order_hash, order)
        status = ("dead" if order_hash in self.dead else "open") if left else "filled"
        return {"orderHash": order_hash, "order": order.to_json(), "status": status}

    def _left(self, order_hash: Hash32, order: WorkerpoolOrder) -> int:
        return order.volume - int(self._contract.functions.viewConsumed(to_bytes(order_hash)).call())


@contextmanager
def market_api(rpc: JsonRpc, hub: Contract, chain_id: int) -> Iterator[Market]:
    """A market that answers until the block ends. `rpc`: of its own, since it asks from threads."""
    market = Market(rpc, hub, chain_id)

    class Requests(Handler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send(market.answer(self.command, self.path, self.headers.get("authorization", ""), body))

        do_POST = do_GET  # noqa: N815
        do_PUT = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    server.daemon_threads = True
    market.url = f"http://127.0.0.1:{server.server_address[1]}"
    with beside(server):
        yield market


#: Answers that decide nothing.
UNKNOWN: dict[str, Fault] = {
    "an error of the server": Answer(500, b'{"ok":false,"error":"Internal error"}', "application/json"),
    "a proxy's error": Answer(502, b"<html>Bad Gateway</html>", "text/html"),
    "a limit": Answer(429, b'{"ok":false,"error":"Rate limit exceeded"}', "application/json"),
    "a page": Answer(200, b"<html>Welcome</html>", "text/html"),
    "a page that is not there": Answer(404, b"<html>Not Found</html>", "text/html"),
    "another object": Answer(200, b"{}", "application/json"),
    "a list": Answer(200, b"[]", "application/json"),
    "cut JSON": Answer(200, b'{"ok":true,"publi', "application/json"),
    "a cut answer": HangUp(10),
    "no answer": HangUp(0),
}


def _json(status: int, content: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(content).encode(), "application/json")
