"""HTTP connections to what is gone without a word, and to what does not come to an end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, cast

import pytest

from config.connections import http_client as clients
from config.connections.http_client import CUT_OFF_SECONDS, http_client
from config.connections.ipfs import Ipfs
from ops.market.secrets import store_secret
from pipeline.broker.admin import BrokerAdmin
from pipeline.flow import challenges
from pipeline.flow.orders import market_api
from protocol.enclave.secrets import Kind, SecretId
from protocol.enclave.session import Session
from protocol.errors import NoSession, Unavailable
from protocol.ethereum.signing import Key
from protocol.types import Hash32, TaskId
from sms import ipfs, provision
from tests.integration.dripping import serving
from tests.waiting import ample
from workers.enclave.sms_api import SmsApi
from workers.pool import bounded_answer
from workers.pool.api import PoolApi

KEY = Key.from_hex("0x" + "11" * 32)
DATASET_SECRET = SecretId(Kind.DATASET, KEY.wallet, "")
SESSION = Session(name="session", services=())
ASKED: dict[str, Callable[[str], object]] = {
    "the pool's API": lambda url: PoolApi(url).config(),
    "a machine's secret service": lambda url: SmsApi(url, KEY, allow_plaintext=True).store_token(),
    "the pool's secret service": lambda url: challenges.SecretServiceApi(url, KEY).challenge(TaskId("0x" + "22" * 32)),
    "the gateway of the secret service": lambda url: ipfs.IpfsGateway(url).fetch("Qm"),
    "the service that attests enclaves": lambda url: provision.Attested(url, url).deliver(SESSION, cast("Any", None)),
    "IPFS": lambda url: Ipfs(url).pin("Qm"),
    "RabbitMQ's management API": lambda url: BrokerAdmin([url], "user", "password").queues(),
    "a requester's secret service": lambda url: store_secret(url, KEY, DATASET_SECRET, b"secret"),
    "a market": lambda url: market_api.MarketApi(url, 134, KEY).status(Hash32("0x" + "33" * 32)),
}


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_kernel_watches_each_connection_so_that_a_peer_that_is_cut_off_is_not_waited_for() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            http_client(f"http://127.0.0.1:{server.server_port}", timeout=ample(5.0)) as client,
            client.stream("GET", "/") as answer,
        ):
            own = answer.extensions["network_stream"].get_extra_info("socket")
            assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, pause, probes = (
                own.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + pause * probes <= CUT_OFF_SECONDS
            # It would also end a connection to a peer that is there and slow to read.
            assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("proxied", [False, True], ids=["directly", "through a proxy"])
def test_a_server_that_drips_the_headers_of_its_answer_is_left_when_their_time_is_over(
    asked: Callable[[str], object], proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        (clients, "WHOLE_ANSWER_SECONDS"),
        (bounded_answer, "ANSWER_SECONDS"),
        (challenges, "ANSWER_SECONDS"),
        (market_api, "TURN_SECONDS"),
        (ipfs, "FETCH_SECONDS"),
        (provision, "STORE_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.2)
    # 4 s of drops are more than any header may have: whoever waits for that hears of another error.
    with serving(b"HTTP/1.1 200 OK\r\nx-long: ", b"x" * 512) as place:
        if proxied:
            monkeypatch.setenv("ALL_PROXY", f"http://{place}")
        with pytest.raises((Unavailable, NoSession), match=r"timed out|did not end within|ReadTimeout"):
            asked("http://service.example" if proxied else f"http://{place}")
