"""Deals that no honest machine can serve, the empty registry that one of them needs, and params that are no text."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import httpx

from bench.arena import Arena
from ops.market import contracts, orders
from ops.market.contracts import App, Dataset
from ops.market.orders import Offer
from ops.poco.accounts import dev_key
from ops.poco.actor import PATIENCE, Actor, Call
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.receipts import Receipt
from ops.poco.state import CHAIN_ID
from ops.pool.ground import PRICE, PROVIDER
from protocol.results.error_result import Failure

#: What is wrong, and the failure that the requester must read.
FAILURES = {
    "absent image": Failure.APP_IMAGE,
    "exit 1": Failure.APP,
    "never ends": Failure.APP_TIMEOUT,
    "wrong checksum": Failure.DATASET_CHECKSUM,
    "params that are no text": Failure.APP,
}

#: What `NotText` turns into bytes that are no UTF-8: as many, so that calldata keeps its shape.
MARK, NO_TEXT = "@NOTEXT@", b"\xff\xfe\xc3\x28\x80\xf0\x9f\x98"


class NotText(str):
    """Deal params as they are hashed and signed: with NO_TEXT in the place of MARK, which no SDK would write."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return super().encode(encoding, errors).replace(MARK.encode(), NO_TEXT)


class Sender(Actor):
    """Sends calldata with NO_TEXT in the place of MARK, since eth_abi encodes texts only."""

    def run(self, calls: Sequence[Call], *, seconds: float = PATIENCE) -> list[Receipt]:
        return super().run(
            [replace(call, data=call.data.replace(MARK.encode().hex(), NO_TEXT.hex())) for call in calls],
            seconds=seconds,
        )


def purchases(hall: Arena, registry: str) -> dict[str, tuple[Offer, int, str]]:
    """(offer, trust, args) for each of FAILURES. `registry`: host and port of one without any image."""
    ground = hall.pool.ground
    owner = Actor(dev_key(PROVIDER), hall.rpc, CHAIN_ID)
    added = httpx.post(f"{hall.servers.ipfs_api}/api/v0/add", files={"file": b"not what the checksum says"})
    url = f"{hall.servers.ipfs_gateway}/ipfs/{added.raise_for_status().json()['Hash']}"
    image = f"{registry}/nothing:1"
    wanted: list[App | Dataset] = [App("absent", image, orders.salt()), Dataset("changed", url, orders.salt())]
    absent, changed = contracts.create(owner, ground.at, wanted)
    plain = ground.offer(price=PRICE)
    app = orders.offer_app(ground.market, owner.key, absent)
    dataset = orders.offer_dataset(ground.market, owner.key, changed)
    return {
        "absent image": (replace(plain, app=app), 1, "noop"),
        # Two machines must agree on the error.
        "exit 1": (plain, 3, "fail"),
        "never ends": (ground.offer(price=PRICE, category=TEST_10_CATEGORY), 1, "sleep 1000"),
        "wrong checksum": (replace(plain, dataset=dataset), 1, "noop"),
        # Read as Java machines read it: the app runs, with replacement characters in its arguments.
        "params that are no text": (plain, 1, f"fail {MARK}"),
    }


@contextmanager
def empty_registry() -> Iterator[str]:
    """Host and port of a Docker registry without any image; Docker talks plain HTTP to loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _EmptyRegistry)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


class _EmptyRegistry(http.server.BaseHTTPRequestHandler):
    """A Docker registry that is there and has no image."""

    def do_GET(self) -> None:
        found = self.path == "/v2/"
        body = b"{}" if found else json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN"}]}).encode()
        self.send_response(200 if found else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    do_HEAD = do_GET  # noqa: N815 - idem

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""
