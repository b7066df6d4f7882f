"""Sign-ins of many fresh wallets and pings of the machines that they are then, at one API process on loopback.

Uses the stack that the settings name (MongoDB and RabbitMQ; `sluice stack up mongodb rabbitmq`), with a database and
virtual hosts of its own, which are removed at the end. Each wallet comes from another address.
The clients are in the API's own process, which makes all figures a little worse than they are.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import TypeVar

import httpx

from bench.figures import percentile
from config.http_client import http_client
from config.settings import Settings, read_settings
from ops.stack import ports
from pipeline.api import serve
from pipeline.api.application import create_app
from pipeline.api.services import Services
from pipeline.store.client import database
from protocol.ethereum.signing import Key
from protocol.signin import SignIn
from protocol.types import ZERO_HASH
from protocol.wire import PROTOCOL, PROTOCOL_HEADER, Capabilities, Challenge, Login, Session

#: Requests at a time: as many as the API has threads.
AT_ONCE = 32
#: Seconds for an answer.
ANSWER_SECONDS = 60.0
OFFER = Capabilities(name="m", version="1", slots=1, cpus=1, memory_bytes=2**30, tag=ZERO_HASH)
Item = TypeVar("Item")


def run(*, logins: int, pings: int) -> Iterator[str]:
    """Measure sign-ins, then pings, at one API process: two lines of JSON with rate, 95th percentile and memory."""
    with _run_api() as (settings, http):
        keys = [Key(secrets.token_bytes(32)) for _ in range(logins)]
        sessions: dict[str, str] = {}

        def sign_in(number: int) -> int:
            key, header = keys[number], _client_header(number) | {PROTOCOL_HEADER: str(PROTOCOL)}
            asked = http.post("/workers/challenge", json={"wallet": key.wallet}, headers=header)
            challenge = Challenge.model_validate_json(asked.content)
            signature = SignIn.from_typed_data(challenge.typed_data).sign(key)
            login = Login(wallet=key.wallet, nonce=challenge.nonce, signature=signature, capabilities=OFFER)
            answer = http.post("/workers/login", json=login.model_dump(exclude_none=True), headers=header)
            if answer.status_code == 200:
                sessions[key.wallet] = Session.model_validate_json(answer.content).token
            return answer.status_code

        def ping(number: int) -> int:
            key = keys[number % logins]
            header = _client_header(number % logins) | {"authorization": f"Bearer {sessions[key.wallet]}"}
            return http.post("/workers/ping", json={"tasks": []}, headers=header).status_code

        yield _measure("sign-ins", range(logins), sign_in)
        yield _measure("pings", range(pings), ping)
        database(settings).client.drop_database(settings.mongodb_database)


def _client_header(number: int) -> dict[str, str]:
    """The proxy header that makes request `number` come from an address of its own."""
    return {"x-forwarded-for": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}


def _measure(what: str, items: Sequence[Item], act: Callable[[Item], int]) -> str:
    """Call `act` for each item, AT_ONCE of them at a time; a line of JSON with rate, percentile and memory."""
    seconds: list[float] = []

    def timed(item: Item) -> int:
        begun = time.monotonic()
        status = act(item)
        seconds.append(time.monotonic() - begun)
        return status

    begun = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = list(pool.map(timed, items))
    took = time.monotonic() - begun
    return json.dumps(
        {
            "what": what,
            "count": len(statuses),
            "refused": sum(status != 200 for status in statuses),
            "per_second": round(len(statuses) / took, 1),
            "p95_seconds": round(percentile(seconds, 0.95), 3),
            "peak_megabytes": getrusage(RUSAGE_SELF).ru_maxrss // 1024,
        }
    )


@contextmanager
def _run_api() -> Iterator[tuple[Settings, httpx.Client]]:
    """An API process on a database of its own, and an HTTP client for it."""
    mark = secrets.token_hex(6)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        settings = read_settings(
            # As many as asked for.
            enrolment_most_machines=0,
            home=home,
            hub="0x" + "ab" * 20,
            workerpool="0x" + "ac" * 20,
            private_key="0x" + "22" * 32,
            rpc_url=f"http://127.0.0.1:{ports.free_port()}",
            mongodb_database=f"bench_{mark}",
            amqp_core_vhost=f"core-{mark}",
            amqp_pool_vhost=f"pool-{mark}",
        )
        services = Services.open(settings)
        services.broker.prepare()
        services.store.ensure_indexes()
        services.challenges.ensure_indexes()
        port = ports.free_port()
        server = serve.server(settings, create_app(services), "127.0.0.1", port)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        http = stack.enter_context(http_client(f"http://127.0.0.1:{port}", timeout=ANSWER_SECONDS))
        try:
            yield settings, http
        finally:
            services.broker.remove_vhosts()
            server.should_exit = True
            thread.join()
