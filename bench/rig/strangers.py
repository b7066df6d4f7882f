"""Machines that harm a pool each in its own way, over the real protocol: HTTP, their own queues, transactions.

lying        votes for a result of its own
colluding    votes for one lie with the others of its kind, who are too few to decide
vanishing    says that it has started, and is never heard of again
unrevealing  votes for the truth, and neither reveals nor brings it
copying      votes for what it sees another vote on chain, and cannot reveal that
slow         does everything as it should, DELAY_SECONDS late
garbage      votes for the truth and reveals it, and brings a result of other files
honest       does everything as it should: one of a crowd of machines without containers

Each has stake and gas money, and no past. A task of trust 1 is believed to its one worker, so who lies says there that
it has a result, and brings none.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

import structlog
from kombu import Connection, Consumer, Queue
from kombu.exceptions import OperationalError
from kombu.message import Message

from bench.rig.bench_pool import NODE_SECONDS, BenchPool
from bench.rig.demo_result import digest_of, honest_files
from bench.rig.fresh_wallets import LOOK_SECONDS, PING_SECONDS, asked_again, offer
from chain.contracts import calls
from chain.contracts.hub import Hub
from chain.rpc.client import Rpc
from config.celery_apps import connect_machine, machine_app
from config.topology import COMPUTE, REVEAL, UPLOAD, worker_queues
from ops.market.contracts import deposits_of
from ops.market.match import Matched
from ops.poco.accounts import dev_key, give_ether
from ops.poco.sender import DirectSender, TxRequest
from ops.pool.on_chain import GAS_MONEY, PROVIDER
from protocol.errors import BadInput, PoolUnavailable, Refused, RpcError, RpcUnavailable, Unavailable
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.keccak import keccak
from protocol.ethereum.signing import Key
from protocol.poco.seal import result_hash, result_seal
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import Contract, Hash32, NRlc, Signature, TaskId
from protocol.wire import Assignment, Mode, Report, ResultLink, Step
from workers.data.result_zip import ResultZip
from workers.pool.api import PoolApi

log = structlog.get_logger(__name__)

#: Seconds by which the slow one is late with each step: longer than the pool waits before it asks a proven machine too,
#: or another winner for the result, and shorter than it takes to count as silent.
DELAY_SECONDS = 20.0
#: Seconds for a task to get on chain, or for another's vote to copy, before this machine gives it up.
CHAIN_SECONDS = 60.0
#: nRLC of each: stake for hundreds of votes at the benchmark's price.
STAKE = NRlc(100_000)
#: Tasks at a time: a newcomer gets two.
AT_ONCE = 4


class Kind(StrEnum):
    """In which way a machine harms."""

    LYING = "lying"
    COLLUDING = "colluding"
    VANISHING = "vanishing"
    UNREVEALING = "unrevealing"
    COPYING = "copying"
    SLOW = "slow"
    GARBAGE = "garbage"
    HONEST = "honest"


#: One of each that is late or silent, and two who collude: the least that can, and too few to decide trust 5.
CAST = (Kind.LYING, Kind.COLLUDING, Kind.VANISHING, Kind.UNREVEALING, Kind.COPYING, Kind.SLOW, Kind.COLLUDING)
_LIARS = {Kind.LYING, Kind.COLLUDING}
_RIGHT = {Kind.SLOW, Kind.HONEST}


@dataclass
class Stranger:
    """One such machine, and the tasks that it was given."""

    kind: Kind
    key: Key
    api: PoolApi
    hub: Hub
    sender: DirectSender
    home: Path
    stop: threading.Event
    token: str = ""
    given: dict[TaskId, Assignment] = field(default_factory=dict)
    #: When each was given first, Unix seconds.
    given_at: dict[TaskId, float] = field(default_factory=dict)
    gone: threading.Event = field(default_factory=threading.Event)
    #: One transaction at a time, so that nonces follow each other.
    sending: threading.Lock = field(default_factory=threading.Lock)

    def consume(self, connection: Connection, queues: Sequence[Queue]) -> None:
        """Take every message and do what this kind does, until `stop`, or until it vanishes; connects again if the
        broker was away.
        """
        away = (*connection.recoverable_connection_errors, OperationalError)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            on_message = partial(self._on_message, pool)
            while not self.stop.is_set() and not self.gone.is_set():
                with suppress(*away), connection.clone() as own:
                    self._drain(own, queues, on_message)
                self.stop.wait(LOOK_SECONDS)

    def _drain(self, connection: Connection, queues: Sequence[Queue], on_message: Callable[[Message], None]) -> None:
        """Take messages from the queues until the machine stops."""
        with Consumer(connection, queues=list(queues), on_message=on_message):
            while not self.stop.is_set() and not self.gone.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=LOOK_SECONDS)

    def _on_message(self, pool: ThreadPoolExecutor, message: Message) -> None:
        """Begin what a message asks for on a thread of the pool."""
        (subject, *_), _, _ = json.loads(message.body or "")
        name = message.headers["task"]
        if name == COMPUTE:
            assignment = Assignment.model_validate(subject)
            self.given[TaskId(assignment.task_id)] = assignment
            self.given_at.setdefault(TaskId(assignment.task_id), time.time())
            pool.submit(self._attempt, self._work, assignment)
        elif (held := self.given.get(TaskId(subject))) is not None:
            act = {REVEAL: self._reveal, UPLOAD: self._upload}.get(name)
            if act is not None:
                pool.submit(self._attempt, act, held)
        message.ack()

    def _attempt(self, act: Callable[[Assignment], None], assignment: Assignment) -> None:
        """Do a step; a failure is logged."""
        try:
            act(assignment)
        except (BadInput, Unavailable, RpcError, RpcUnavailable) as error:
            # E.g. the task ended meanwhile.
            log.info("A stranger failed.", action="stranger_failed", kind=str(self.kind), why=str(error))

    # -- what it does ---------------------------------------------------------------------------------------------

    def _work(self, assignment: Assignment) -> None:
        """Compute and vote in the way of this kind of machine."""
        self._report(assignment, Step.STARTED)
        if self.kind is Kind.VANISHING:
            self.gone.set()
            return
        if self.kind is Kind.SLOW:
            self.stop.wait(DELAY_SECONDS)
        self._report(assignment, Step.COMPUTED)
        if assignment.mode is Mode.SOLO:
            if self.kind in _RIGHT:
                self._until(TaskId(assignment.task_id), lambda view: view.status is TaskStatus.ACTIVE)
                self._finalize_alone(assignment)
            elif self.kind is Kind.GARBAGE:
                self._store_garbage(assignment)
            return
        task = TaskId(assignment.task_id)
        if self.kind is Kind.COPYING:
            self._until(task, lambda view: bool(view.contributions))
            (seen,) = self.hub.tasks([task])
            if seen.contributions:
                self._vote(
                    assignment, seen.contributions[0].result_hash, result_seal(self.key.wallet, task, _lie(task))
                )
            return
        self._until(task, lambda view: view.status is TaskStatus.ACTIVE)
        digest = self._digest(assignment)
        self._vote(assignment, result_hash(task, digest), result_seal(self.key.wallet, task, digest))

    def _digest(self, assignment: Assignment) -> Hash32:
        """The digest that this machine votes for."""
        match self.kind:
            case Kind.LYING:
                return _lie(self.key.wallet)
            case Kind.COLLUDING:
                return _lie(assignment.deal_id)
            case _:
                return digest_of(_files(assignment))

    def _vote(self, assignment: Assignment, hashed: Hash32, seal: Hash32) -> None:
        """Send the vote (`contribute`) with this result hash and seal."""
        task, authorization = TaskId(assignment.task_id), Signature(assignment.authorization)
        self._send("contribute", calls.contribute(task, hashed, seal, authorization))

    def _reveal(self, assignment: Assignment) -> None:
        """Reveal, unless this kind of machine does not."""
        if self.kind is Kind.SLOW:
            self.stop.wait(DELAY_SECONDS)
        if self.kind in {Kind.GARBAGE, *_RIGHT, *_LIARS}:
            self._send("reveal", calls.reveal(TaskId(assignment.task_id), self._digest(assignment)))

    def _upload(self, assignment: Assignment) -> None:
        """Upload the result, another one, or none, as this kind of machine does."""
        if self.kind is Kind.SLOW:
            self.stop.wait(DELAY_SECONDS)
        if self.kind in _RIGHT:
            self._store(assignment)
        elif self.kind is Kind.GARBAGE:
            self._store_garbage(assignment)

    def _finalize_alone(self, assignment: Assignment) -> None:
        """Upload the result and send contributeAndFinalize."""
        link = self._store(assignment)
        results = to_hex(link.model_dump_json().encode())
        task, authorization = TaskId(assignment.task_id), Signature(assignment.authorization)
        data = calls.contribute_and_finalize(task, self._digest(assignment), results, authorization)
        self._send("contributeAndFinalize", data)

    # -- pool and chain -------------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Say that it is there, unless it has vanished."""
        if not self.gone.is_set():
            # A wallet that a test has banned is refused. After any other failure the next ping will do.
            with suppress(BadInput, PoolUnavailable):
                self.api.ping(self.token, list(self.given)[-AT_ONCE:])

    def _report(self, assignment: Assignment, step: Step) -> None:
        """Report a step to the pool."""
        report = partial(self.api.report, self.token, TaskId(assignment.task_id), Report(step=step))
        asked_again(report)

    def _store_garbage(self, assignment: Assignment) -> None:
        """Upload a result that is not what was computed."""
        with suppress(Refused, BadInput):
            self._store(assignment, _files(assignment) | {"result.txt": b"garbage"})

    def _store(self, assignment: Assignment, files: Mapping[str, bytes] | None = None) -> ResultLink:
        """Upload a result of these files, the right ones by default; returns its link."""
        path = self.home / f"{assignment.task_id}-{self.key.wallet}.zip"
        with ResultZip(path) as packed:
            for name, content in (files or _files(assignment)).items():
                with packed.file(name, len(content)) as write:
                    write(content)
        put = partial(self.api.put_result, self.token, TaskId(assignment.task_id), path)
        return asked_again(put).link

    def _send(self, method: str, data: str) -> None:
        """Send a transaction to the hub and wait until it is mined."""
        with self.sending:
            self.sender.send([TxRequest(self.hub.address, data, calls.gas_limit(method, data))])

    def _until(self, task: TaskId, holds: Callable[[ChainView], bool]) -> ChainView | None:
        """The task once the chain shows this of it; None if the run is over first, or CHAIN_SECONDS have passed."""
        until = time.monotonic() + CHAIN_SECONDS
        while time.monotonic() < until and not self.stop.wait(LOOK_SECONDS):
            (view,) = self.hub.tasks([task])
            if holds(view):
                return view
        return None


def _files(assignment: Assignment) -> dict[str, bytes]:
    """The files of the right result."""
    args = json.loads(assignment.params)["iexec_args"]
    return honest_files(assignment.index, assignment.bot_size, args)


def _lie(about: str) -> Hash32:
    """A wrong digest that depends on nothing but `about`."""
    return Hash32(to_hex(keccak(f"a lie about {about}".encode())))


def funded(bench_pool: BenchPool, count: int) -> list[Key]:
    """Fresh wallets with stake and gas money."""
    keys = [Key(secrets.token_bytes(32)) for _ in range(count)]
    wallets = tuple(key.wallet for key in keys)
    give_ether(bench_pool.rpc, wallets, GAS_MONEY)
    payer = DirectSender(dev_key(PROVIDER), bench_pool.rpc, bench_pool.chain.chain_id)
    payer.run(deposits_of(bench_pool.rpc, bench_pool.chain.addresses, dict.fromkeys(wallets, STAKE)))
    return keys


@contextmanager
def at_work(bench_pool: BenchPool, keys: Sequence[Key], cast: Sequence[Kind] = CAST) -> Iterator[list[Stranger]]:
    """A stranger of each kind in `cast` for each of `keys`, which have stake; they stay enrolled after the block."""
    with made(bench_pool, keys, cast) as strangers, ExitStack() as stack:
        stop = threading.Event()
        for stranger in strangers:
            stack.enter_context(signed_in_and_working(bench_pool, stranger, str(stranger.kind)))
        pinging = threading.Thread(target=_ping, args=(strangers, stop), daemon=True)
        pinging.start()
        try:
            yield strangers
        finally:
            stop.set()
            pinging.join()


@contextmanager
def made(bench_pool: BenchPool, keys: Sequence[Key], cast: Sequence[Kind]) -> Iterator[list[Stranger]]:
    """A stranger of each kind for each of `keys`, not signed in yet, with connections until the end of the block."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        api = PoolApi(bench_pool.pool.api_url)
        stack.callback(api.close)
        strangers = []
        for kind, key in zip(cast, keys, strict=True):
            rpc = stack.enter_context(Rpc(bench_pool.chain.rpc_url, NODE_SECONDS))
            sender = DirectSender(key, rpc, bench_pool.chain.chain_id)
            hub = Hub(rpc, Contract(bench_pool.chain.addresses.hub))
            strangers.append(Stranger(kind, key, api, hub, sender, home, threading.Event()))
        yield strangers


@contextmanager
def signed_in_and_working(bench_pool: BenchPool, stranger: Stranger, name: str) -> Iterator[None]:
    """Sign one in, and have it take what it is given until the end of the block. Raises PoolUnavailable, Refused."""
    config = asked_again(stranger.api.config)
    ca_file = bench_pool.pool.env.get("SLUICE_AMQP_CA_FILE")
    session = asked_again(partial(stranger.api.sign_in, stranger.key, config, offer(name, config.most_slots)))
    stranger.token, stranger.stop = session.token, threading.Event()
    app = machine_app(stranger.key.wallet)
    connect_machine(app, session.broker, Path(ca_file) if ca_file else None)
    consume = partial(stranger.consume, app.connection(), worker_queues(stranger.key.wallet))
    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stranger.stop.set()
        thread.join()


def _ping(strangers: Sequence[Stranger], stop: threading.Event) -> None:
    """The thread: have all machines ping until it is stopped."""
    while not stop.wait(PING_SECONDS):
        for stranger in strangers:
            stranger.ping()


def deeds(strangers: Sequence[Stranger], views: Mapping[TaskId, ChainView]) -> dict[str, dict[str, int]]:
    """By kind: tasks given, votes on chain, and votes with the winner that were revealed."""
    counted: dict[str, dict[str, int]] = {}
    for stranger in strangers:
        votes = [vote for view in views.values() if (vote := view.contribution(stranger.key.wallet)) is not None]
        won = [view for view in views.values() if stranger.key.wallet in {vote.worker for vote in view.revealed}]
        mine = counted.setdefault(str(stranger.kind), {"machines": 0, "given": 0, "voted": 0, "won": 0})
        for name, number in (("machines", 1), ("given", len(stranger.given)), ("voted", len(votes)), ("won", len(won))):
            mine[name] += number
    return counted


def wrong_results(deals: Sequence[Matched], views: Mapping[TaskId, ChainView]) -> int:
    """How many tasks of these deals (argument `noop`) were completed with another result than an honest machine's."""
    wrong = 0
    for deal in deals:
        for index, task in enumerate(deal.tasks):
            truth = result_hash(task, digest_of(honest_files(index, len(deal.tasks))))
            wrong += views[task].status is TaskStatus.COMPLETED and views[task].consensus != truth
    return wrong
