"""Several Ethereum nodes behind the interface of one.

    first          chain id and head of all nodes side by side; goes on with the first that is right
    reads          the present node; when it fails, the next, and that one from then on. Where it leaves something
                   open (an error, null, no bytes, a head below one read before), the others are asked too, and the
                   one that leaves least open decides
    transactions   all usable nodes at once; the first that takes them decides. If none does, the answer is the present
                   node's error with those of the others beside it: what they mean together is for the sender to judge
    every few s    chain id and head of every node, in the background

One node is asked as long as it is good, so the reads of one step come from one view of the chain. A node that has not
said that it is on our chain is asked nothing else. One that failed once is only asked again in the background: frozen
from the start it costs its callers nothing, and frozen later one time-out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import structlog

from chain.rpc import health
from chain.rpc.answers import Known, Reply, Unknown, decode_replies, decode_reply, parse_quantity, values
from chain.rpc.client import JsonRpc, Request, Rpc
from chain.rpc.health import NodeHealth
from chain.rpc.response import node_error, reverted
from chain.rpc.shapes import fits
from config.connections.http_client import proxy_for
from config.processes.per_process import PerProcess
from config.settings import Settings
from config.values.endpoints import rpc_urls
from protocol.errors import NodesOfOtherChain, RpcError, RpcUnavailable
from protocol.types import BlockNumber

log = structlog.get_logger(__name__)

#: The one method that goes to all nodes: the same bytes may reach a chain any number of times.
_BROADCAST = "eth_sendRawTransaction"
_HEAD: Request = ("eth_blockNumber", ())
#: Seconds for which a head below one that was read before is taken for a node that is behind. Longer, and the chain has
#: been rolled back; nodes of one chain differ by a block or two, for some seconds.
BEHIND_SECONDS = 30.0
#: Seconds between two checks of all nodes.
CHECK_SECONDS = 5.0
#: Threads for each node: one to send, one to check.
_THREADS = 2


def connect(settings: Settings) -> Rpc | RpcPool:
    """The node that SLUICE_RPC_URL names, or a pool if it names several separated by commas. Raises BadSetting."""
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
        self._health = [NodeHealth() for _ in nodes]
        #: Position of the present node; None before the first answer.
        self._current: int | None = None
        self._checked_at: float | None = None
        #: The highest head that a reader got, and when it was read last.
        self._highest: tuple[BlockNumber, float] = (BlockNumber(0), clock())
        #: A fork inherits no threads, and perhaps a lock that no thread will ever release.
        self._lock = PerProcess(threading.Lock)
        #: For each node its own threads, so that a frozen node holds up no other's work. They start with the first
        #: work, so spare ones are free.
        self._executors = PerProcess(
            lambda: [ThreadPoolExecutor(_THREADS, thread_name_prefix="rpc") for _ in self._nodes]
        )
        #: Checks that were begun last.
        self._checks: PerProcess[list[Future[None]]] = PerProcess(list)

    @property
    def name(self) -> str:
        """Names of all nodes, without anything secret."""
        return " or ".join(node.name for node in self._nodes)

    def call(self, method: str, *params: object) -> Any:
        """The result of one call. Raises RpcError, RpcUnavailable (NodesOfOtherChain if no node is on ours)."""
        (answer,) = self.batch([(method, params)])
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def batch(self, requests: Sequence[Request]) -> list[Reply]:
        """Results in the order of `requests`, an RpcError standing where one failed. Raises as `call`."""
        self._start_checks()
        if requests and all(method == _BROADCAST for method, _ in requests):
            return self._broadcast(requests)
        return self._ask(requests)

    # -- reads ---------------------------------------------------------------------------------------------------------

    def _ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Answers of the present node if it answers everything; else of the node that leaves the fewest requests
        unanswered.
        """
        last: RpcUnavailable | None = None
        given: list[_Answered] = []
        for position in self._candidates(lambda: all(each.errors for each in given)):
            try:
                answers = self._batch_from(position, requests)
            except RpcUnavailable as error:
                last = error
                continue
            given.append(_Answered.of(position, requests, answers, self._least_head()))
            if not given[-1].open:
                break
        if not given:
            raise last or self._no_node_error()
        # Of equals the first: the present node, or the fastest.
        best = min(given, key=lambda each: each.open)
        for each in given:
            if each.errors > best.errors:
                self._update_health(each.position, lambda record: record.failed(self._clock()))
        self._check_head(best)
        self._set_current(best.position)
        return best.answers

    def _least_head(self) -> BlockNumber | None:
        """The highest head that readers got lately: a node with a lower head is behind.

        None if none was read for BEHIND_SECONDS.
        """
        head, since = self._highest
        return head if self._clock() - since < BEHIND_SECONDS else None

    def _check_head(self, found: _Answered) -> None:
        """Store the head that readers get. Raises RpcUnavailable if it is below one that they got before."""
        if found.head is None:
            return
        least = self._least_head()
        if least is not None and found.head < least:
            why = f"its head is block {found.head}, behind block {least} that was read before"
            raise RpcUnavailable(what=self._nodes[found.position].name, why=why)
        self._highest = (found.head, self._clock())

    def _candidates(self, keep_waiting: Callable[[], bool] = lambda: True) -> Iterator[int]:
        """Positions of the nodes to try one after the other, each once, in the order of their health at that moment.

        Waits for checks that run while no other node is known to be good, as long as `keep_waiting`.
        """
        tried: set[int] = set()
        while True:
            # Before the order, or a check that ends between the two is missed.
            under_way = self._running_checks()
            # Where none is good, one that failed is the last hope; it is no better than another that just failed.
            now = [at for at in self._positions() if at not in tried and not (tried and self._health[at].failures)]
            if now:
                tried.add(now[0])
                yield now[0]
            elif under_way and keep_waiting():
                wait(under_way, return_when=FIRST_COMPLETED)
            else:
                return

    def _batch_from(self, position: int, requests: Sequence[Request]) -> list[Reply]:
        """Answers of one node, with the outcome recorded in its health."""
        try:
            answers = self._nodes[position].batch(requests)
        except RpcUnavailable:
            self._update_health(position, lambda record: record.failed(self._clock()))
            raise
        self._update_health(position, NodeHealth.answered)
        return answers

    # -- transactions --------------------------------------------------------------------------------------------------

    def _broadcast(self, requests: Sequence[Request]) -> list[Reply]:
        """Send transactions to every usable node; return when one took all, or when every node has answered."""
        if next(self._candidates(), None) is None:
            raise self._no_node_error()
        order, executors = self._positions(), self._executors.get()
        sending = {
            executors[position].submit(self._send_to, position, requests, self._health[position].failures): position
            for position in order
        }
        taken: dict[int, list[Reply]] = {}
        failed: list[RpcUnavailable] = []
        pending: set[Future[list[Reply]]] = set(sending)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    taken[sending[future]] = future.result()
                except RpcUnavailable as error:
                    failed.append(error)
            if any(all(map(_is_taken, answers)) for answers in taken.values()):
                break
        if not taken:
            raise failed[0] if failed else self._no_node_error()
        # In the order of preference, so that what an error says is the present node's word.
        answers = [taken[position] for position in order if position in taken]
        # A node that did not answer may have taken them.
        silent = [node_error(_BROADCAST, str(error)) for error in failed]
        return [_join_answers([*same, *silent]) for same in zip(*answers, strict=True)]

    def _send_to(self, position: int, requests: Sequence[Request], failures: int) -> list[Reply]:
        """`_batch_from` one node, in its own thread; not if the node has failed since the request was queued."""
        if self._health[position].failures > failures:
            raise RpcUnavailable(what=self._nodes[position].name, why="it failed a moment ago")
        return self._batch_from(position, requests)

    # -- which nodes are good ------------------------------------------------------------------------------------------

    def _start_checks(self) -> None:
        """Start a check of all nodes in the background if that is due."""
        now = self._clock()
        with self._lock.get():
            known = any(record.on_our_chain for record in self._health)
            if (
                self._checked_at is None
                or now - self._checked_at >= CHECK_SECONDS
                or not (known or self._running_checks())
            ):
                self._checked_at = now
                due = [at for at, record in enumerate(self._health) if not known or record.paused_until <= now]
                executors, checks = self._executors.get(), self._checks.get()
                checks[:] = [executors[at].submit(self._check_node, at) for at in due]

    def _running_checks(self) -> set[Future[None]]:
        """Checks that have not ended."""
        return {check for check in tuple(self._checks.get()) if not check.done()}

    def _check_node(self, position: int) -> None:
        """Ask one node for its chain and head, and record the answer in its health. Only changes are logged."""
        node, before = self._nodes[position], self._health[position]
        began = self._clock()
        try:
            chain_id, head = _ask_chain_and_head(node)
            syncing = chain_id == self._chain_id and _is_syncing(node)
        except RpcUnavailable as error:
            self._update_health(position, lambda record: record.failed(self._clock()))
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
        self._update_health(position, lambda record: record.checked(head, took, right_chain=right, syncing=syncing))

    def _positions(self) -> list[int]:
        """Positions of the nodes in the order to try them (`health.order`)."""
        with self._lock.get():
            return health.order(self._health, self._current)

    def _update_health(self, position: int, change: Callable[[NodeHealth], NodeHealth]) -> None:
        """Replace the health of one node."""
        with self._lock.get():
            self._health[position] = change(self._health[position])

    def _set_current(self, position: int) -> None:
        """Make this node the one that is asked first; log a change."""
        if self._current is not None and position != self._current:
            log.warning(
                "Another node is asked from now on.",
                action="rpc_switched",
                node=self._nodes[position].name,
                before=self._nodes[self._current].name,
            )
        self._current = position

    def _no_node_error(self) -> RpcUnavailable:
        """The error to raise where no node can be asked."""
        if not all(record.wrong_chain for record in self._health):
            return RpcUnavailable(what=self.name, why="no node has said yet that it is on the right chain")
        return NodesOfOtherChain(
            why=f"none of {self.name} is on chain {self._chain_id}",
            fix="Set SLUICE_RPC_URL to nodes of that chain, or SLUICE_CHAIN_ID to theirs.",
        )

    def close(self) -> None:
        """End this process's threads, waiting for what they do, and the nodes' connections."""
        for threads in self._executors.forget() or ():
            threads.shutdown(cancel_futures=True)
        for node in self._nodes:
            if isinstance(node, Rpc):
                node.close()


def _ask_chain_and_head(node: JsonRpc) -> tuple[int, BlockNumber]:
    """A node's chain id and head. Raises RpcUnavailable, also for a node that cannot tell them."""
    answers = node.batch([("eth_chainId", ()), _HEAD])
    chain_id, head = values(decode_replies(answers, parse_quantity), node.name)
    return chain_id, BlockNumber(head)


def _is_syncing(node: JsonRpc) -> bool:
    """Whether a node still syncs, by eth_syncing: a node that does not may answer false, or its progress."""
    (answer,) = node.batch([("eth_syncing", ())])
    match decode_reply(answer, lambda it: int(it["highestBlock"], 16) - int(it["currentBlock"], 16)):
        case Known(behind):
            return behind > health.MOST_LAG
        case Unknown():
            return answer is True or isinstance(answer, dict)


@dataclass(frozen=True, slots=True)
class _Answered:
    """One node's answers to a batch, and how much they leave open."""

    position: int
    answers: list[Reply]
    #: Errors that are no contract's refusal.
    errors: int
    #: Calls that leave something open: errors, null, no bytes, and a head below the highest one known.
    open: int
    #: The head that they tell.
    head: BlockNumber | None

    @classmethod
    def of(
        cls, position: int, requests: Sequence[Request], answers: list[Reply], least: BlockNumber | None
    ) -> _Answered:
        """Judge one node's answers to a batch. A head below `least` counts as one request left open, since the node is
        behind.
        """
        heads = [head for request, answer in zip(requests, answers, strict=True) if (head := _head_in(request, answer))]
        head = min(heads, default=None)
        errors = sum(isinstance(answer, RpcError) and not reverted(answer) for answer in answers)
        nothing = sum(
            answer is None or (answer == "0x" and method == "eth_call")
            for (method, _), answer in zip(requests, answers, strict=True)
        )
        behind = head is not None and least is not None and head < least
        return cls(position, answers, errors, errors + nothing + behind, head)


def _head_in(request: Request, answer: Reply) -> BlockNumber | None:
    """The head's number, if the request asked for the head and the answer has it."""
    method, params = request
    if method == "eth_getBlockByNumber" and list(params[:1]) == ["latest"]:
        found = decode_reply(answer, lambda header: int(header["number"], 16))
    elif method == "eth_blockNumber":
        found = decode_reply(answer, parse_quantity)
    else:
        return None
    return BlockNumber(found.value) if isinstance(found, Known) else None


def _is_taken(answer: Reply) -> bool:
    """Whether a node's answer to a transaction says that it took it: it is neither an error nor null."""
    return answer is not None and not isinstance(answer, RpcError)


def _join_answers(answers: Sequence[Reply]) -> Reply:
    """The answer to a transaction that went to several nodes: a result if a node took it, else the first error, with
    the others beside it.

    None only if all answered null: it may have been taken, as with a node that did not answer.
    """
    taken = next((answer for answer in answers if _is_taken(answer)), None)
    if taken is not None or all(answer is None for answer in answers):
        return taken
    first, *others = (
        answer if isinstance(answer, RpcError) else node_error(_BROADCAST, "the node answered null")
        for answer in answers
    )
    if not others:
        return first
    return RpcError(method=_BROADCAST, code=first.code, message=first.message, data=first.data, others=tuple(others))
