"""Deals that no honest machine can serve, the empty registry that one of them needs, and params that are no text."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import httpx

from bench.rig.bench_pool import BenchPool
from ops.market import contracts, orders
from ops.market.contracts import NewApp, NewDataset
from ops.market.orders import Offer
from ops.poco.accounts import dev_key
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.receipts import Receipt
from ops.poco.sender import WAIT_SECONDS, DirectSender, TxRequest
from ops.poco.state import CHAIN_ID
from ops.pool.on_chain import PRICE, PROVIDER
from protocol.results.error_result import Failure
from tests.waiting import ample

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


class Sender(DirectSender):
    """Sends calldata with NO_TEXT in the place of MARK, since eth_abi encodes texts only."""

    def run(self, calls: Sequence[TxRequest], *, seconds: float = WAIT_SECONDS) -> list[Receipt]:
        return super().run(
            [replace(call, data=call.data.replace(MARK.encode().hex(), NO_TEXT.hex())) for call in calls],
            seconds=seconds,
        )


def purchases(shared_pool: BenchPool, registry: str) -> dict[str, tuple[Offer, int, str]]:
    """(offer, trust, args) for each of FAILURES. `registry`: host and port of one without any image."""
    on_chain = shared_pool.pool.on_chain
    owner = DirectSender(dev_key(PROVIDER), shared_pool.rpc, CHAIN_ID)
    added = httpx.post(
        f"{shared_pool.servers.ipfs_api}/api/v0/add", files={"file": b"not what the checksum says"}, timeout=ample(5.0)
    )
    url = f"{shared_pool.servers.ipfs_gateway}/ipfs/{added.raise_for_status().json()['Hash']}"
    image = f"{registry}/nothing:1"
    wanted: list[NewApp | NewDataset] = [
        NewApp("absent", image, orders.salt()),
        NewDataset("changed", url, orders.salt()),
    ]
    absent, changed = contracts.create(owner, on_chain.at, wanted)
    plain = on_chain.offer(price=PRICE)
    app = orders.offer_app(on_chain.market, owner.key, absent)
    dataset = orders.offer_dataset(on_chain.market, owner.key, changed)
    return {
        "absent image": (replace(plain, app=app), 1, "noop"),
        # Two machines must agree on the error.
        "exit 1": (plain, 3, "fail"),
        "never ends": (on_chain.offer(price=PRICE, category=TEST_10_CATEGORY), 1, "sleep 1000"),
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
    thread.join()
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

    do_HEAD = do_GET  # noqa: N815 - the library calls it by this name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""
