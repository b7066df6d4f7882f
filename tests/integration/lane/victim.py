"""A process that submits payments, runs the lane, and is shot at an exact point.

The point is an operation of the lane's store, node or signer, and whether the shot falls before or after it. `SIGKILL`
leaves nothing to tidy up with; `SIGSTOP` is a pause of the whole machine.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chain.lane.signer import KeySigner
from chain.lane.store.mongo import MongoStore
from chain.lane.store.port import LaneStore
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.client import Rpc
from chain.rpc.heads import heads
from config.connections.mongodb import client
from protocol.errors import RpcUnavailable
from protocol.ethereum.signing import Key
from tests.integration.lane.rig import POLICY, lane_of, payment


@dataclass(frozen=True, slots=True)
class Orders:
    """What to do and where to die."""

    rpc_url: str
    #: `mongodb://…` and a database name, or a path and "".
    store: str
    database: str
    key: str
    submit: tuple[str, ...]
    #: `store.claim`, `store.move`, `store.add`, `rpc.eth_sendRawTransaction`, `signer.sign`, …; empty: live on.
    at: str = ""
    when: str = "after"
    #: At the how-maniest time.
    times: int = 1
    #: Runs to make; 0: one at every head, for ever.
    runs: int = 1
    max_in_flight: int = 16
    shot: int = signal.SIGKILL
    #: Before the shot, pretend that the node's answer never came.
    lose_answer: bool = False


def open_store(where: str, database: str) -> LaneStore:
    """The store that orders name."""
    return MongoStore(client(where)[database]) if database else SqliteStore(Path(where))


class Target:
    """A port that is shot at its `times`-th `operation`."""

    def __init__(self, port: Any, prefix: str, orders: Orders) -> None:
        self._port = port
        self._prefix = prefix
        self._orders = orders
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        return self._guarded(name, value) if callable(value) else value

    def _guarded(self, name: str, operation: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            due = self._due(name, args)
            if due and self._orders.when == "before":
                os.kill(os.getpid(), self._orders.shot)
            answer = operation(*args, **kwargs)
            if due and self._orders.lose_answer:
                raise RpcUnavailable(what="the node", why="the test lost its answer")
            if due and self._orders.when == "after":
                os.kill(os.getpid(), self._orders.shot)
            return answer

        return call

    def _due(self, name: str, args: tuple[Any, ...]) -> bool:
        names = {f"{self._prefix}.{name}"}
        if name == "batch":
            names |= {f"{self._prefix}.{method}" for method, _ in args[0]}
        if self._orders.at not in names:
            return False
        self._count += 1
        return self._count == self._orders.times


def main(orders: Orders) -> None:
    """Run the lane as `orders` say, until the process is killed there."""
    key = Key.from_hex(orders.key)
    rpc = Rpc(orders.rpc_url)
    lane = lane_of(
        Target(open_store(orders.store, orders.database), "store", orders),
        Target(rpc, "rpc", orders),
        key,
        replace(POLICY, max_in_flight=orders.max_in_flight),
        signer=Target(KeySigner(key), "signer", orders),
    )
    if orders.submit:
        lane.submit([payment(31337, key.wallet, name, number) for number, name in enumerate(orders.submit)])
    for _ in range(orders.runs):
        lane.run()
    if not orders.runs:
        for _ in heads(None, rpc, 0.2, threading.Event()):
            lane.run()
