"""Several Ethereum nodes behind the face of one.

    reads          the present node; when it fails, the next, and that one from then on
    transactions   all usable nodes at once; the first that takes them decides
    every few s    chain id and head of every node, in the background

One node is asked as long as it is good, so the reads of one step come from one view of the chain; and since a node that
failed once is only asked again in the background, a frozen node costs its callers one time-out and no more.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import structlog

from chain import health
from chain.health import Health
from chain.rpc import JsonRpc, Request, Rpc
from config.endpoints import rpc_urls
from config.settings import Settings
from protocol.errors import RpcError, RpcUnavailable, WrongChain
from protocol.types import BlockNumber

log = structlog.get_logger(__name__)

#: The one method that goes to all nodes: the same bytes may reach a chain any number of times.
_BROADCAST = "eth_sendRawTransaction"
#: "Limit exceeded" (EIP-1474), "internal error" (JSON-RPC), and HTTP's "too many requests", which some nodes repeat.
_FAULT_CODES = frozenset({-32005, -32603, 429})
#: What geth, Erigon, Nethermind, Besu and providers say under codes that mean anything (-32000, -32001, -32016 ...).
_FAULT_PHRASES = (
    "header not found",
    "missing trie node",
    "unknown block",
    "block not found",
    "rate limit",
    "too many requests",
    "capacity",
    "timed out",
    "timeout",
)
#: Seconds between two checks of all nodes.
CHECK_SECONDS = 5.0


def connect(settings: Settings) -> Rpc | RpcPool:
    """The node, or nodes separated by commas, that SLUICE_RPC_URL names. Raises BadSetting."""
    urls = rpc_urls(settings)
    nodes = [Rpc(url, settings.rpc_timeout) for url in urls]
    return nodes[0] if len(nodes) == 1 else RpcPool(nodes, settings.chain_id)


class RpcPool:
    """`nodes` that should all be on chain `chain_id`; `clock` in seconds, any origin.

    Safe to share between threads, and to carry across a fork.
    """

    def __init__(self, nodes: Sequence[JsonRpc], chain_id: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._nodes = list(nodes)
        self._chain_id = chain_id
        self._clock = clock
        self._health = [Health() for _ in nodes]
        self._current = 0
        self._checked_at: float | None = None
        #: By process id: a fork inherits no threads, and perhaps a lock that nobody will ever open.
        self._locks: dict[int, threading.Lock] = {}
        self._threads: dict[int, ThreadPoolExecutor] = {}

    @property
    def name(self) -> str:
        """All nodes, without anything secret."""
        return " or ".join(node.name for node in self._nodes)

    def call(self, method: str, *params: object) -> Any:
        """The result of one call. Raises RpcError, RpcUnavailable, or WrongChain if no node is on the right chain."""
        (answer,) = self.batch([(method, params)])
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Results in the order of `requests`, an RpcError standing where one failed. Raises as `call`."""
        self._look_around()
        if requests and all(method == _BROADCAST for method, _ in requests):
            return self._broadcast(requests)
        return self._ask(requests)

    # -- reads ---------------------------------------------------------------------------------------------------------

    def _ask(self, requests: Sequence[Request]) -> list[Any]:
        last: RpcUnavailable | None = None
        spoiled: list[Any] | None = None
        for position in self._order():
            try:
                answers = self._from(position, requests)
            except RpcUnavailable as error:
                last = error
                continue
            if any(isinstance(answer, RpcError) and is_nodes_fault(answer) for answer in answers):
                # Another node may have what this one lacks; if none has, the first one's word stands.
                self._note(position, lambda record: record.failed(self._clock()))
                spoiled = answers if spoiled is None else spoiled
                continue
            self._stay_with(position)
            return answers
        if spoiled is not None:
            return spoiled
        if last is None:
            raise self._wrong_chain()
        raise last

    def _from(self, position: int, requests: Sequence[Request]) -> list[Any]:
        began = self._clock()
        try:
            answers = self._nodes[position].batch(requests)
        except RpcUnavailable:
            self._note(position, lambda record: record.failed(self._clock()))
            raise
        took = self._clock() - began
        self._note(position, lambda record: record.answered(took))
        return answers

    # -- transactions --------------------------------------------------------------------------------------------------

    def _broadcast(self, requests: Sequence[Request]) -> list[Any]:
        """Send to every usable node; done as soon as one took all, else when every node has answered."""
        order = self._order()
        if not order:
            raise self._wrong_chain()
        sending = {self._executor().submit(self._from, position, requests): position for position in order}
        taken: dict[int, list[Any]] = {}
        failed: list[RpcUnavailable] = []
        pending: set[Future[list[Any]]] = set(sending)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    taken[sending[future]] = future.result()
                except RpcUnavailable as error:
                    failed.append(error)
            if any(not any(isinstance(answer, RpcError) for answer in answers) for answers in taken.values()):
                break
        if not taken:
            raise failed[0]
        # In the order of preference, so that what an error says is the present node's word.
        answers = [taken[position] for position in order if position in taken]
        return [_best(same) for same in zip(*answers, strict=True)]

    # -- which nodes are good ------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        """Have all nodes checked if that is due; waits only the first time, and only for the first good node."""
        with self._lock():
            now = self._clock()
            first = self._checked_at is None
            if not first and self._checked_at is not None and now - self._checked_at < CHECK_SECONDS:
                return
            self._checked_at = now
            due = [position for position, record in enumerate(self._health) if record.rests_until <= now]
        pending = {self._executor().submit(self._check, position) for position in due}
        while first and pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            if any(future.result() for future in done):
                return

    def _check(self, position: int) -> bool:
        """Ask one node for its chain and head; whether it is good."""
        node = self._nodes[position]
        try:
            chain_id, head = self._from(position, [("eth_chainId", ()), ("eth_blockNumber", ())])
            if isinstance(chain_id, RpcError) or isinstance(head, RpcError):
                self._note(position, lambda record: record.failed(self._clock()))
                return False
        except RpcUnavailable as error:
            log.warning("A node does not answer.", action="rpc_down", node=node.name, why=str(error))
            return False
        right = int(chain_id, 16) == self._chain_id
        if not right:
            log.error(
                "A node is on another chain; it is not asked.",
                action="rpc_wrong_chain",
                node=node.name,
                chain=int(chain_id, 16),
            )
        self._note(position, lambda record: record.checked(BlockNumber(int(head, 16)), right_chain=right))
        return right

    def _order(self) -> list[int]:
        with self._lock():
            return health.order(self._health, self._current)

    def _note(self, position: int, change: Callable[[Health], Health]) -> None:
        with self._lock():
            self._health[position] = change(self._health[position])

    def _stay_with(self, position: int) -> None:
        if position != self._current:
            log.warning(
                "Another node is asked from now on.",
                action="rpc_switched",
                node=self._nodes[position].name,
                before=self._nodes[self._current].name,
            )
            self._current = position

    def _wrong_chain(self) -> WrongChain:
        return WrongChain(
            why=f"none of {self.name} is on chain {self._chain_id}",
            fix="Set SLUICE_RPC_URL to nodes of that chain, or SLUICE_CHAIN_ID to theirs.",
        )

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _executor(self) -> ThreadPoolExecutor:
        """This process's threads, for a fork inherits none; they start with the first work, so a spare is free."""
        made = ThreadPoolExecutor(2 * len(self._nodes), thread_name_prefix="rpc")
        return self._threads.setdefault(os.getpid(), made)

    def close(self) -> None:
        """End this process's threads, waiting for what they do, and the nodes' connections."""
        threads = self._threads.pop(os.getpid(), None)
        if threads is not None:
            threads.shutdown(cancel_futures=True)
        for node in self._nodes:
            if isinstance(node, Rpc):
                node.close()


def is_nodes_fault(error: RpcError) -> bool:
    """Whether another node might well answer the same question: a limit, a block it lacks, a failure inside it.

    An answer with data, or about a revert, is the contract's.
    """
    words = error.message.lower()
    if error.data is not None or "revert" in words:
        return False
    return error.code in _FAULT_CODES or any(phrase in words for phrase in _FAULT_PHRASES)


def _best(answers: Sequence[Any]) -> Any:
    """Of several nodes' answers to the same transaction, the first that is no error."""
    return next((answer for answer in answers if not isinstance(answer, RpcError)), answers[0])
