"""Nodes that answer as a test says, and a pool of three of them whose checks a test waits for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Any

from chain.rpc.client import Request
from chain.rpc.pool import RpcPool
from protocol.errors import RpcError, RpcUnavailable

CHAIN = 31337
SEND: Request = ("eth_sendRawTransaction", ("0x01",))
#: Seconds no wait of these tests should take.
WAIT_SECONDS = 100.0


@dataclass(slots=True)
class FakeNode:
    """One node; `frozen` fails like a time-out, `stuck` does not return until the test releases it."""

    name: str
    chain_id: int = CHAIN
    head: int = 100
    frozen: bool = False
    refuses: str | None = None
    #: Whether it answers null to transactions.
    mute: bool = False
    #: What it answers to calls.
    fails: RpcError | None = None
    stuck: threading.Event | None = None
    #: What it answers to eth_call instead of its name, and to eth_syncing.
    says: Any = ""
    syncing: Any = False
    asked: list[str] = field(default_factory=list)

    def call(self, method: str, *params: object) -> Any:
        return self.batch([(method, params)])[0]

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        self.asked += [method for method, _ in requests]
        if self.stuck is not None:
            self.stuck.wait(WAIT_SECONDS)
        if self.frozen:
            raise RpcUnavailable(what=self.name, why="no answer within 5 s")
        return [self._answer(method) for method, _ in requests]

    def _answer(self, method: str) -> Any:
        match method:
            case "eth_chainId":
                return hex(self.chain_id)
            case "eth_blockNumber":
                return hex(self.head)
            case "eth_sendRawTransaction" if self.mute:
                return None
            case "eth_sendRawTransaction" if self.refuses is not None:
                return RpcError(method=method, code=-32000, message=self.refuses)
            case "eth_call" if self.fails is not None:
                return self.fails
            case "eth_call" if self.says != "":
                return self.says
            case "eth_syncing":
                return self.syncing
        return self.name


@dataclass(slots=True)
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Setup:
    nodes: list[FakeNode]
    clock: Clock
    pool: RpcPool

    def begin(self) -> None:
        """Have all nodes checked for the first time, and the first one be the present one."""
        gate = threading.Event()
        for node in self.nodes[1:]:
            node.stuck = gate
        self.pool.call("eth_call")
        gate.set()
        self.await_checks()

    def pass_time(self, seconds: float) -> None:
        """Let time pass and wait until the check that is due then has ended."""
        self.clock.now += seconds
        self.pool.call("eth_call")
        self.await_checks()

    def await_checks(self) -> None:
        """Wait until the checks under way have ended."""
        assert not wait(self.pool._checks.get(), WAIT_SECONDS).not_done
