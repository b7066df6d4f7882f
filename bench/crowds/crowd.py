"""Sign-ins of many fresh wallets, then pings of the machines that they are, at the API of a pool at work on loopback.

Each wallet comes from another address. Sign-ins beyond those that may wait are refused with 503, and asked for again as
a machine does. After it, the pool is asked whether it works, and a deal is bought of it, which its honest machines have
to complete. The clients share the machine with the pool, which makes all figures worse than they are.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx

from bench.rig.bare import inserts_per_second
from bench.rig.bench_pool import BenchPool, BrokenPromise, open_bench_pool
from bench.rig.figures import percentile
from config.connections.http_client import http_client
from config.connections.mongodb import client
from protocol.ethereum.signing import Key
from protocol.poco.view import TaskStatus
from protocol.signin import SignIn
from protocol.types import ZERO_HASH
from protocol.wire import PROTOCOL, PROTOCOL_HEADER, Capabilities, Challenge, Login, Session

#: Requests at a time: as many as the API has threads.
AT_ONCE = 32
#: Seconds for an answer.
ANSWER_SECONDS = 60.0
#: Times that a sign-in is asked for, and seconds between two: sixteen may wait at the pool at a time, half of AT_ONCE.
TRIES, TRY_SECONDS = 10, 1.0
#: Honest machines, and tasks of the deal that they complete afterwards.
HONEST, TASKS = 3, 4
BLOCK_TIME = 1.0
#: Memory of the API's process at most: it has some 120 MB at its start, and the crowd adds a few.
MOST_MEGABYTES = 250
#: Stands for a status where there was no answer.
NO_ANSWER = 0
OFFER = Capabilities(name="m", version="1", slots=1, cpus=1, memory_bytes=2**30, tag=ZERO_HASH)
Item = TypeVar("Item")


def run(*, logins: int, pings: int) -> Iterator[str]:
    """Measure sign-ins, then pings, at one API process: two lines of JSON with answers by status, rate, 95th percentile
    and memory; then one that says whether the pool works, and what became of an honest deal.

    Raises BrokenPromise unless each was answered without a 5xx, memory was bounded and the deal is completed.
    """
    # As many machines as asked for.
    env = {"SLUICE_ENROLMENT_MOST_MACHINES": "0"}
    with open_bench_pool(block_time=BLOCK_TIME, workers=HONEST, slots=1, env=env) as bench_pool:
        measured = []
        for found in _crowd(bench_pool, logins, pings):
            measured.append(found)
            yield json.dumps(found)
        begun = time.monotonic()
        views = bench_pool.wait([bench_pool.buy(trust=3, volume=TASKS)])
        completed = sum(view.status is TaskStatus.COMPLETED for view in views.values())
        with http_client(bench_pool.pool.api_url, timeout=ANSWER_SECONDS) as http:
            health = http.get("/health").status_code
        deal = {
            "what": "honest deal afterwards",
            "tasks": TASKS,
            "completed": completed,
            "seconds": round(time.monotonic() - begun, 1),
            "pool_works": health == 200,
            "programs_alive": all(process.alive() for process in bench_pool.pool.running.values()),
        }
        yield json.dumps(deal)
    wrong = [f"{found['failed']} {found['what']} got a 5xx or no answer" for found in measured if found["failed"]]
    if any(found["api_peak_megabytes"] > MOST_MEGABYTES for found in measured):
        wrong.append(f"the API needed more than {MOST_MEGABYTES} MB")
    if not (completed == TASKS and deal["pool_works"] and deal["programs_alive"]):
        wrong.append("the pool did not work as before afterwards")
    if wrong:
        raise BrokenPromise(what="The crowd's run", why="\n".join(wrong))


def _crowd(bench_pool: BenchPool, logins: int, pings: int) -> Iterator[dict[str, Any]]:
    """Sign many wallets in, have them ping, and yield the figures."""
    bare = inserts_per_second(client(bench_pool.servers.mongodb_uri)[bench_pool.names.database])
    keys = [Key(secrets.token_bytes(32)) for _ in range(logins)]
    sessions: dict[str, str] = {}
    with http_client(bench_pool.pool.api_url, timeout=ANSWER_SECONDS) as http:

        def sign_in(number: int) -> int:
            """Sign a wallet in, again while the pool says that too many do; the HTTP status of the last answer."""
            for _ in range(TRIES):
                status = sign_in_once(number)
                if status != httpx.codes.SERVICE_UNAVAILABLE:
                    break
                time.sleep(TRY_SECONDS)
            return status

        def sign_in_once(number: int) -> int:
            """Ask for a wallet's sign-in; the HTTP status of the last answer."""
            key, header = keys[number], _client_header(number) | {PROTOCOL_HEADER: str(PROTOCOL)}
            asked = http.post("/workers/challenge", json={"wallet": key.wallet}, headers=header)
            if asked.status_code != 200:
                return asked.status_code
            challenge = Challenge.model_validate_json(asked.content)
            signature = SignIn.from_typed_data(challenge.typed_data).sign(key)
            login = Login(wallet=key.wallet, nonce=challenge.nonce, signature=signature, capabilities=OFFER)
            answer = http.post("/workers/login", json=login.model_dump(exclude_none=True), headers=header)
            if answer.status_code == 200:
                sessions[key.wallet] = Session.model_validate_json(answer.content).token
            return answer.status_code

        def ping(number: int) -> int:
            """Send a wallet's ping; the answer's HTTP status."""
            token = sessions.get(keys[number % logins].wallet, "")
            header = _client_header(number % logins) | {"authorization": f"Bearer {token}"}
            return http.post("/workers/ping", json={"tasks": []}, headers=header).status_code

        yield _measure("sign-ins", bench_pool, range(logins), sign_in, bare)
        yield _measure("pings", bench_pool, range(pings), ping, bare)


def _client_header(number: int) -> dict[str, str]:
    """The proxy header that makes request `number` come from an address of its own."""
    return {"x-forwarded-for": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}


def _measure(
    what: str, bench_pool: BenchPool, items: Sequence[Item], act: Callable[[Item], int], bare: float
) -> dict[str, Any]:
    """Call `act` for each item, AT_ONCE of them at a time; figures with statuses (0: no answer; why is told
    too), rate and memory.

    `bare`: durable inserts a second of the pool's database.
    """
    seconds: list[float] = []
    unanswered: Counter[str] = Counter()

    def timed(item: Item) -> int:
        """Call `act` and note how long it took; its status, or NO_ANSWER."""
        begun = time.monotonic()
        try:
            status = act(item)
        except httpx.TransportError as error:
            status = NO_ANSWER
            unanswered[f"{type(error).__name__}: {error}"] += 1
        seconds.append(time.monotonic() - begun)
        return status

    begun = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = list(pool.map(timed, items))
    took = time.monotonic() - begun
    return {
        "what": what,
        "count": len(statuses),
        "statuses": {str(status): count for status, count in sorted(Counter(statuses).items())},
        "failed": sum(status >= 500 or status == NO_ANSWER for status in statuses),
        "unanswered": dict(unanswered),
        "per_second": round(len(statuses) / took, 1),
        "bare_inserts_per_second": round(bare),
        "share_of_bare_inserts": round(len(statuses) / took / bare, 5),
        "p95_seconds": round(percentile(seconds, 0.95), 3),
        "api_peak_megabytes": _peak_megabytes(bench_pool.pool.child_pid("scheduler", "api")),
    }


def _peak_megabytes(pid: int) -> int:
    """The most memory that the process has had."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024
