"""Several Ethereum nodes behind the face of one.

    first          chain id and head of all nodes side by side; goes on with the first that is right
    reads          the present node; when it fails, the next, and that one from then on
    transactions   all usable nodes at once; the first that takes them decides
    every few s    chain id and head of every node, in the background

One node is asked as long as it is good, so the reads of one step come from one view of the chain. A node that has not
said that it is on our chain is asked nothing else. One that failed once is only asked again in the background: frozen
from the start it costs its callers nothing, and frozen later one time-out.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import structlog

from chain import health
from chain.health import Health
from chain.response import reverted
from chain.rpc import JsonRpc, Request, Rpc
from chain.shapes import fits
from config.endpoints import rpc_urls
from config.http_client import proxy_for
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
#: Threads for each node: one to send, one to check.
_THREADS = 2


def connect(settings: Settings) -> Rpc | RpcPool:
    """The node, or nodes separated by commas, that SLUICE_RPC_URL names. Raises BadSetting."""
    urls = rpc_urls(settings)
    for url in urls:
        # A proxy variable that cannot be honoured is refused here, not in a thread that asks in the background.
        proxy_for(url)
    nodes = [Rpc(url, settings.rpc_timeout, fits=fits) for url in urls]
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
        #: Position of the present node; None before the first answer.
        self._current: int | None = None
        self._checked_at: float | None = None
        #: By process id: a fork inherits no threads, and perhaps a lock that nobody will ever open.
        self._locks: dict[int, threading.Lock] = {}
        self._threads: dict[int, list[ThreadPoolExecutor]] = {}
        #: Checks that were begun last.
        self._checks: dict[int, set[Future[None]]] = {}

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
        for position in self._candidates():
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
        raise last or self._nobody()

    def _candidates(self) -> Iterator[int]:
        """Nodes to try one after the other, each once, as good as they are when it is their turn."""
        tried: set[int] = set()
        while True:
            # Before the order, or a check that ends between the two is missed.
            under_way = self._under_way()
            # Where none is good, one that failed is the last hope; it is no better than another that just failed.
            now = [at for at in self._order() if at not in tried and not (tried and self._health[at].failures)]
            if now:
                tried.add(now[0])
                yield now[0]
            elif under_way:
                wait(under_way, return_when=FIRST_COMPLETED)
            else:
                return

    def _from(self, position: int, requests: Sequence[Request]) -> list[Any]:
        try:
            answers = self._nodes[position].batch(requests)
        except RpcUnavailable:
            self._note(position, lambda record: record.failed(self._clock()))
            raise
        self._note(position, Health.answered)
        return answers

    # -- transactions --------------------------------------------------------------------------------------------------

    def _broadcast(self, requests: Sequence[Request]) -> list[Any]:
        """Send to every usable node; done as soon as one took all, else when every node has answered."""
        if next(self._candidates(), None) is None:
            raise self._nobody()
        order = self._order()
        sending = {
            self._executor(position).submit(self._give, position, requests, self._health[position].failures): position
            for position in order
        }
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

    def _give(self, position: int, requests: Sequence[Request], failures: int) -> list[Any]:
        """As `_from`, unless the node has failed since, while this stood in line behind other work for it."""
        if self._health[position].failures > failures:
            raise RpcUnavailable(what=self._nodes[position].name, why="it failed a moment ago")
        return self._from(position, requests)

    # -- which nodes are good ------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        """Begin a check of all nodes if that is due."""
        now = self._clock()
        with self._lock():
            known = any(record.right for record in self._health)
            if self._checked_at is None or now - self._checked_at >= CHECK_SECONDS or not (known or self._under_way()):
                self._checked_at = now
                due = [at for at, record in enumerate(self._health) if not known or record.rests_until <= now]
                self._checks[os.getpid()] = {self._executor(at).submit(self._check, at) for at in due}

    def _under_way(self) -> set[Future[None]]:
        """Checks that have not ended."""
        return {check for check in self._checks.get(os.getpid(), ()) if not check.done()}

    def _check(self, position: int) -> None:
        """Ask one node for its chain and head. Only changes are logged."""
        node, before = self._nodes[position], self._health[position]
        began = self._clock()
        try:
            chain_id, head = _chain_and_head(node)
        except RpcUnavailable as error:
            self._note(position, lambda record: record.failed(self._clock()))
            if not before.failures:
                log.warning("A node does not answer.", action="rpc_down", node=node.name, why=str(error))
            return
        took = self._clock() - began
        right = chain_id == self._chain_id
        if not right and not before.wrong_chain:
            log.error(
                "A node is on another chain; it is not asked.",
                action="rpc_wrong_chain",
                node=node.name,
                chain=chain_id,
            )
        self._note(position, lambda record: record.checked(head, took, right_chain=right))

    def _order(self) -> list[int]:
        with self._lock():
            return health.order(self._health, self._current)

    def _note(self, position: int, change: Callable[[Health], Health]) -> None:
        with self._lock():
            self._health[position] = change(self._health[position])

    def _stay_with(self, position: int) -> None:
        if self._current is not None and position != self._current:
            log.warning(
                "Another node is asked from now on.",
                action="rpc_switched",
                node=self._nodes[position].name,
                before=self._nodes[self._current].name,
            )
        self._current = position

    def _nobody(self) -> WrongChain | RpcUnavailable:
        if not all(record.wrong_chain for record in self._health):
            return RpcUnavailable(what=self.name, why="no node has said yet that it is on the right chain")
        return WrongChain(
            why=f"none of {self.name} is on chain {self._chain_id}",
            fix="Set SLUICE_RPC_URL to nodes of that chain, or SLUICE_CHAIN_ID to theirs.",
        )

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _executor(self, position: int) -> ThreadPoolExecutor:
        """This process's threads for one node, so that a frozen one holds up nobody else's work.

        A fork inherits none. They start with the first work, so spare ones are free.
        """
        process = os.getpid()
        if process not in self._threads:
            made = [ThreadPoolExecutor(_THREADS, thread_name_prefix="rpc") for _ in self._nodes]
            self._threads.setdefault(process, made)
        return self._threads[process][position]

    def close(self) -> None:
        """End this process's threads, waiting for what they do, and the nodes' connections."""
        for threads in self._threads.pop(os.getpid(), ()):
            threads.shutdown(cancel_futures=True)
        for node in self._nodes:
            if isinstance(node, Rpc):
                node.close()


def _chain_and_head(node: JsonRpc) -> tuple[int, BlockNumber]:
    """Chain id and head. Raises RpcUnavailable, also for a node that cannot say them."""
    answers = node.batch([("eth_chainId", ()), ("eth_blockNumber", ())])
    for answer in answers:
        if isinstance(answer, RpcError):
            raise RpcUnavailable(what=node.name, why=str(answer)) from answer
    chain_id, head = (int(answer, 16) for answer in answers)
    return chain_id, BlockNumber(head)


def is_nodes_fault(error: RpcError) -> bool:
    """Whether another node might well answer the same question: a limit, a block it lacks, a failure inside it.

    An answer with data, or about a revert, is the contract's.
    """
    words = error.message.lower()
    if reverted(error):
        return False
    return error.code in _FAULT_CODES or any(phrase in words for phrase in _FAULT_PHRASES)


def _best(answers: Sequence[Any]) -> Any:
    """Of several nodes' answers to the same transaction, the first that is no error."""
    return next((answer for answer in answers if not isinstance(answer, RpcError)), answers[0])
