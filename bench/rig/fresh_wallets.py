"""Wallets that sign in with gas money, no stake and no past, claim as many slots as the pool takes, and do no work.

By turns one is silent, one says that it has started, one that it has computed, one that the app is at fault.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TypeVar

from kombu import Connection, Consumer, Queue
from kombu.message import Message

from bench.rig.bench_pool import BenchPool
from config.celery_apps import connect_machine, machine_app
from config.topology import worker_queues
from protocol.errors import PoolUnavailable, Refused
from protocol.ethereum.signing import Key
from protocol.types import ZERO_HASH, TaskId
from protocol.wire import Capabilities, Report, Step
from workers.pool.api import PoolApi

#: What each says of a task that it is given, by turns.
WORDS: tuple[tuple[Report, ...], ...] = (
    (),
    (Report(step=Step.STARTED),),
    (Report(step=Step.STARTED), Report(step=Step.COMPUTED)),
    (Report(step=Step.FAILED, cause="APP_IMAGE_DOWNLOAD_FAILED"),),
)
#: Native token of each, in wei: gas for many tasks.
GAS_MONEY = 10**18
#: Seconds between pings of all, well below the time after which a silent machine counts as lost.
PING_SECONDS = 10.0
#: Times that a request to the pool is made while no answer comes: each takes 5 s at most, and the machine may be busy.
TRIES = 10
#: Seconds for one wait for a message, after which it is seen whether the run is over.
LOOK_SECONDS = 0.5

T = TypeVar("T")


@dataclass
class FreshWallet:
    """One such wallet: what it says of each task, and the tasks that it was given."""

    key: Key
    words: Sequence[Report]
    api: PoolApi
    token: str = ""
    given: list[TaskId] = field(default_factory=list)

    def consume(self, connection: Connection, queues: Sequence[Queue], stop: threading.Event) -> None:
        """Take every message, say the words, and do nothing, until `stop`."""
        with connection, Consumer(connection, queues=list(queues), on_message=self._on_message):
            while not stop.is_set():
                try:
                    connection.drain_events(timeout=LOOK_SECONDS)
                except TimeoutError:
                    continue

    def _on_message(self, message: Message) -> None:
        """Report what this wallet reports of each task that it is given."""
        (subject, *_), _, _ = json.loads(message.body or "")
        if isinstance(subject, dict):
            task = TaskId(subject["task_id"])
            self.given.append(task)
            for report in self.words:
                asked_again(partial(self.api.report, self.token, task, report))
        message.ack()


@contextmanager
def signed_in(bench_pool: BenchPool, count: int) -> Iterator[list[FreshWallet]]:
    """So many fresh wallets, at their queues and pinging until the end of the block; they stay enrolled after it."""
    api = PoolApi(bench_pool.pool.api_url)
    config, stop = api.config(), threading.Event()
    ca_file = bench_pool.pool.env.get("SLUICE_AMQP_CA_FILE")
    wallets = [FreshWallet(Key(secrets.token_bytes(32)), words, api) for words, _ in zip(cycle(WORDS), range(count))]
    bench_pool.rpc.batch([("anvil_setBalance", (wallet.key.wallet, hex(GAS_MONEY))) for wallet in wallets])
    threads = [threading.Thread(target=_ping, args=(api, wallets, stop), daemon=True)]
    for number, wallet in enumerate(wallets):
        # As many slots as the pool takes.
        sign_in = partial(api.sign_in, wallet.key, config, offer(f"fresh-{number}", config.most_slots))
        session = asked_again(sign_in)
        wallet.token = session.token
        app = machine_app(wallet.key.wallet)
        connect_machine(app, session.broker, Path(ca_file) if ca_file else None)
        queues = worker_queues(wallet.key.wallet)
        threads.append(threading.Thread(target=wallet.consume, args=(app.connection(), queues, stop), daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield wallets
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        api.close()


def offer(name: str, slots: int) -> Capabilities:
    """The capabilities that a machine which runs nothing claims."""
    return Capabilities(name=name, version="1", slots=slots, cpus=1, memory_bytes=2**30, tag=ZERO_HASH)


def asked_again(ask: Callable[[], T]) -> T:
    """The pool's answer, requested up to TRIES times, since it may be busy. Raises PoolUnavailable, Refused."""
    for _ in range(TRIES - 1):
        with suppress(PoolUnavailable):
            return ask()
    return ask()


def _ping(api: PoolApi, wallets: Sequence[FreshWallet], stop: threading.Event) -> None:
    """The thread: have all wallets ping until it is stopped."""
    while not stop.wait(PING_SECONDS):
        for wallet in wallets:
            # A wallet that a test has banned is refused. After any other failure the next ping will do.
            with suppress(Refused, PoolUnavailable):
                api.ping(wallet.token, list(dict.fromkeys(wallet.given)))
