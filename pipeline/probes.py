"""Asks every server for the facts that `pipeline.domain.condition.health` judges: in parallel, each with a time limit.

A server that hangs costs one thread and its own answer, nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, TypeVar

import httpx
import pymongo
import structlog
from pymongo.errors import ExecutionTimeout, OperationFailure, PyMongoError

from chain.contracts.hub import Hub
from chain.contracts.views import Account
from chain.lane import admin
from chain.lane.model.intent import IntentState, LaneId
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.snapshot import take_snapshot
from chain.lane.rules.fees import quote
from chain.lane.rules.poco import poco_lane
from chain.lane.run import Lane
from chain.lane.store.lease import process_of
from chain.lane.store.mongo import MongoStore
from chain.rpc.client import Rpc
from chain.rpc.pool import RpcPool, connect
from config import topology
from config.celery_apps import core_app
from config.connections.http_client import http_client
from config.connections.http_dates import read_http_date
from config.settings import Settings
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.link import BROKER_ERRORS
from pipeline.certificates import LastLook
from pipeline.domain.condition.facts import (
    AuditFacts,
    BrokerFacts,
    DatabaseFacts,
    ExpectedPool,
    Facts,
    IpfsFacts,
    LaneFacts,
    MachineFacts,
    NoAnswer,
    NodeFacts,
    QueueFacts,
    ResultFacts,
)
from pipeline.store.client import Store, database
from pipeline.store.database.copies import Copies
from protocol.errors import (
    BadSetting,
    BrokerRefused,
    BrokerUnavailable,
    RpcError,
    RpcUnavailable,
    Unavailable,
    WrongChain,
)
from protocol.ethereum.signing import Key
from protocol.types import Contract, Wallet

log = structlog.get_logger(__name__)
Counts = TypeVar("Counts")

#: Seconds that one server may take for one answer, and that all of them may take together.
ANSWER_SECONDS, ALL_SECONDS = 3.0, 6.0
#: Seconds for which messages in queues are not counted again, however often a report is asked for: with thousands of
#: machines the answer is long.
QUEUE_SECONDS = 9.0
#: Seconds for which the node is not asked again which chain it is on, who owns the workerpool and what stake it has, as
#: long as it answers: a dozen calls.
CHAIN_SECONDS = 30.0
#: The servers by what is asked of them.
SERVERS = {"database": "MongoDB", "broker": "RabbitMQ", "ipfs": "IPFS", "node": "the chain's node"}


@dataclass(slots=True)
class Probes:
    """The questions to one pool's servers. Not for several threads at a time."""

    settings: Settings
    pool: ExpectedPool
    rpc: Rpc | RpcPool
    broker: BrokerAdmin
    lane: Lane
    #: What is known of results that could not be stored.
    results: Callable[[], ResultFacts | None] = lambda: None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, thread_name_prefix="probe"))
    _asked: dict[str, Future[Any]] = field(default_factory=dict)
    _began: float | None = None
    #: The last head seen to be new, and when: (number, block time, monotonic seconds).
    _head: tuple[int, int, float] | None = None
    _moved: tuple[float, float] | None = None
    #: When the node was last asked what CHAIN_SECONDS is about, by the monotonic clock; the owner, and its account.
    _chain: tuple[float, Wallet, Account] | None = None
    #: The last count of messages, and when: monotonic seconds.
    _counted: tuple[float, tuple[QueueFacts, ...]] | None = None
    #: Since when messages wait in a queue, by its name; by `monotonic`.
    _waiting: dict[str, float] = field(default_factory=dict)
    _certificates: LastLook = field(default_factory=LastLook)

    @classmethod
    def open(cls, settings: Settings, key: Key, results: Callable[[], ResultFacts | None] = lambda: None) -> Self:
        """Connections of their own, with short time limits. `results`: tells of results that could not be stored.
        Raises BadSetting.
        """
        if settings.hub is None or settings.workerpool is None:
            missing = "SLUICE_HUB" if settings.hub is None else "SLUICE_WORKERPOOL"
            raise BadSetting(name=missing, why="it is not set", fix="Give the contract's address.")
        quick = settings.model_copy(update={"rpc_timeout": min(settings.rpc_timeout, ANSWER_SECONDS)})
        rpc = connect(quick)
        pool = ExpectedPool(
            wallet=key.wallet,
            workerpool=Contract(settings.workerpool.lower()),
            block_time=settings.block_time,
            start_block=settings.start_block,
            spend_depth=settings.spend_depth,
            keep_balance=settings.keep_balance_wei,
            sweep_seconds=settings.sweep_seconds,
        )
        lane = poco_lane(quick, rpc, key, MongoStore(database(settings)))
        return cls(settings, pool, rpc, BrokerAdmin.from_settings(settings, timeout=ANSWER_SECONDS), lane, results)

    def close(self) -> None:
        """Close the connections to the servers; a request that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.rpc.close()
        self.broker.close()

    def ask(self, *, running: bool) -> Facts:
        """What every server says now. `running`: the pool is up, so queues, lane and machines count too."""
        now = self.monotonic()
        self._began = now if self._began is None else self._began
        questions: dict[str, Callable[[], Any]] = {
            "database": partial(ask_database, self.settings, self.clock, write=running),
            "broker": partial(self._broker, running=running),
            "ipfs": partial(ask_ipfs, self.settings),
            "node": self._node,
        }
        if running:
            questions |= {"lane": self._lane, "machines": self._machines}
        facts = Facts(
            now=self.clock(),
            **self._answers(questions),
            watched=now - self._began,
            results=self.results(),
            certificates=self._certificates.seen(self.settings, now, self._threads) if running else (),
        )
        return self._with_pace(facts)

    def _answers(self, questions: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """The answers to questions, asked in parallel; one that still has no answer is not asked a second time."""
        for name, question in questions.items():
            if name not in self._asked:
                self._asked[name] = self._threads.submit(question)
        wait([self._asked[name] for name in questions], timeout=ALL_SECONDS)
        found = {}
        for name in questions:
            if not self._asked[name].done():
                found[name] = _late(SERVERS[name]) if name in SERVERS else None
                continue
            found[name] = self._asked.pop(name).result()
        return found

    def _with_pace(self, facts: Facts) -> Facts:
        """The facts with how long the head has stood still, and how fast it moved, as far as this process has seen."""
        if not isinstance(facts.node, NodeFacts):
            return facts
        seen = (facts.node.head, facts.node.timestamp, self.monotonic())
        if self._head is not None and seen[0] > self._head[0]:
            self._moved = (seen[2], (seen[1] - self._head[1]) / max(seen[2] - self._head[2], 0.001))
        if self._head is None or seen[0] > self._head[0]:
            self._head = seen
        if self._moved is None:
            return facts
        return replace(facts, head_still=seen[2] - self._moved[0], head_pace=self._moved[1])

    def _node(self) -> NodeFacts | NoAnswer:
        """The node's answers about the chain, the workerpool and our wallet."""
        hub = Hub(self.rpc, Contract(str(self.settings.hub).lower()))
        try:
            _, owner, account = self._chain = self._slow_facts(hub)
            seen = take_snapshot(self.rpc, self.pool.wallet, None)
            max_fee = quote(LanePolicy.of(self.settings).fees, seen.market).max_fee
            return NodeFacts(seen.head, seen.timestamp, seen.balance, max_fee, owner, account.stake, account.locked)
        except WrongChain as error:
            self._chain = None
            return NoAnswer(str(error), "")
        except (RpcUnavailable, RpcError) as error:
            # It may be another node that answers next.
            self._chain = None
            fix = "See that the node runs and SLUICE_RPC_URL names it; several may be named."
            return NoAnswer(str(error), fix, may_recover=True)

    def _slow_facts(self, hub: Hub) -> tuple[float, Wallet, Account]:
        """When they were read (monotonic seconds), the workerpool's owner and the wallet's account in the hub: those in
        `_chain`, or read anew once they are CHAIN_SECONDS old. Raises WrongChain, RpcUnavailable, RpcError.
        """
        now = self.monotonic()
        if self._chain is not None and now < self._chain[0] + CHAIN_SECONDS:
            return self._chain
        hub.check_chain(self.settings)
        return now, hub.workerpool(self.pool.workerpool).owner, hub.account(self.pool.wallet)

    def _broker(self, *, running: bool) -> BrokerFacts | NoAnswer:
        """RabbitMQ's answers about itself and, once the pool is up, about our queues."""
        queues = [queue.name for queue in core_app(self.settings, self.pool.wallet).conf.task_queues]
        wanted = [name for name in queues if name != topology.DEAD_QUEUE]
        found = ask_broker(self.broker, wanted if running else (), self.clock)
        if isinstance(found, NoAnswer):
            # Also where the management API refuses us or is something else: queues need none of it.
            return replace(found, serves=takes_connections(self.settings))
        if not running or not isinstance(found, BrokerFacts):
            return found
        return replace(found, queues=self._queues([*queues, topology.RETRY_QUEUE]))

    def _queues(self, wanted: Sequence[str]) -> tuple[QueueFacts, ...]:
        """Messages in these queues, and in those of all machines together, as far as RabbitMQ lists either in time.
        Others of the scheduler's vhost have names that clients make up.
        """
        now = self.monotonic()
        if self._counted is None or now >= self._counted[0] + QUEUE_SECONDS:
            ours = _counted(self.broker.queues)
            if ours is None:
                # The next report says what is wrong with it.
                return ()
            counts = [count for count in ours if count.name in wanted]
            machines = _counted(self.broker.machines_queues)
            counts += () if machines is None else (machines,)
            self._waiting = {it.name: self._waiting.get(it.name, now) for it in counts if it.ready}
            self._counted = (
                now,
                tuple(
                    QueueFacts(it.name, it.ready, it.unacknowledged, now - self._waiting.get(it.name, now))
                    for it in counts
                ),
            )
        return self._counted[1]

    def _lane(self) -> LaneFacts | None:
        """The state of the lane by its records; None if MongoDB or the node does not answer."""
        store, lane = MongoStore(database(self.settings)), LaneId(self.settings.chain_id, self.pool.wallet)
        try:
            with pymongo.timeout(ANSWER_SECONDS):
                halted, stuck, holder = store.notes(lane)
                oldest = store.in_state(lane, (IntentState.QUEUED, IntentState.SENT), 1)
                if halted is not None or stuck is not None or not oldest:
                    return LaneFacts(halted, stuck=stuck)
                waiting = self.clock() - oldest[0].created_at
                return LaneFacts(None, waiting, admin.status(self.lane).why, run_by=process_of(holder))
        except (PyMongoError, Unavailable, RpcError, WrongChain):
            # Another part reports which of them does not answer, or is of another chain.
            return None

    def _machines(self) -> MachineFacts | None:
        """How many machines can work, and what keeps the others from it; None if MongoDB does not answer."""
        now = self.clock()
        try:
            with pymongo.timeout(ANSWER_SECONDS):
                return Store.open(self.settings).census.machine_facts(now - self.settings.worker_lost_seconds, now)
        except PyMongoError:
            return None


def _counted(count: Callable[[], Counts]) -> Counts | None:
    """What RabbitMQ counts; None if it does not answer, or not as it should."""
    try:
        return count()
    except (BrokerUnavailable, KeyError, TypeError, ValueError) as error:
        log.warning("RabbitMQ does not count its messages.", action="queues_uncounted", why=str(error))
        return None


#: MongoDB's codes for a user that it does not know, or that may not do this.
_NO_RIGHTS = {13, 18}


def _late(server: str, seconds: float = ALL_SECONDS) -> NoAnswer:
    """The finding that a server did not answer in time."""
    fix = "It takes connections and does not answer; see whether it is overloaded, and look at its log."
    return NoAnswer(f"{server} gave no answer in {seconds:g} s", fix, may_recover=True)


def ask_database(settings: Settings, clock: Callable[[], float], *, write: bool = False) -> DatabaseFacts | NoAnswer:
    """Ask MongoDB whether it is a replica set, its time, and how far the watcher is. `write`: try a write too."""
    try:
        with pymongo.timeout(ANSWER_SECONDS):
            db = database(settings)
            before = clock()
            hello = db.client.admin.command("hello")
            ahead = hello["localTime"].timestamp() - (before + clock()) / 2
            store, cut_off = Store.of(db), Copies(db).cut_off()
            if write and not cut_off:
                store.hold.try_write()
            cursor, (swept_at, swept_by), audited = store.chain.cursor(), store.sweeps.last(), store.audits.last()
    except ExecutionTimeout:
        return _late("MongoDB", ANSWER_SECONDS)
    except OperationFailure as error:
        why = f"MongoDB refuses: {error.details.get('errmsg', error) if error.details else error}"
        if error.code not in _NO_RIGHTS:
            return NoAnswer(why, "See what its log says.", may_recover=True)
        return NoAnswer(why, "Correct user and password in SLUICE_MONGODB_URI, and give it readWrite on the database.")
    except BadSetting as error:
        return NoAnswer(str(error), "")
    except PyMongoError as error:
        why = f"MongoDB does not answer: {str(error).partition(' (')[0].partition(', Timeout')[0]}"
        return NoAnswer(why, "Start it, or correct SLUICE_MONGODB_URI.", may_recover=True)
    if cut_off:
        what, _, fix = cut_off.partition(": ")
        return NoAnswer(what, fix[:1].upper() + fix[1:])
    audit = None if audited is None else AuditFacts(audited.at, audited.differences, audited.first, audited.unasked)
    replicated = "setName" in hello or hello.get("msg") == "isdbgrid"
    return DatabaseFacts(replicated, ahead, cursor, swept_at, swept_by, audit)


def ask_broker(admin: BrokerAdmin, queues: Sequence[str], clock: Callable[[], float]) -> BrokerFacts | NoAnswer:
    """Ask RabbitMQ for the user's rights, its alarms, and which of `queues` have no consumer."""
    try:
        me = admin.identity()
        user, tags, ahead = str(me.json()["name"]), me.json()["tags"], http_clock_ahead(me, clock())
        alarms = admin.alarms()
        unread = admin.unread(queues) if queues else ()
        tells = admin.tells_of_cuts()
    except BrokerRefused as error:
        if error.fields["status"] != httpx.codes.UNAUTHORIZED:
            return NoAnswer(str(error), "Give SLUICE_AMQP_URL a user with the tag administrator.")
        why = (
            f"RabbitMQ at {admin.api_url} refuses the user of SLUICE_AMQP_URL: its password is wrong, or it is not "
            "tagged administrator"
        )
        return NoAnswer(why, "Correct SLUICE_AMQP_URL, or run: rabbitmqctl set_user_tags USER administrator")
    except BrokerUnavailable as error:
        fix = "Start RabbitMQ with its management plugin, or correct SLUICE_RABBITMQ_API."
        return NoAnswer(str(error), fix, may_recover=True)
    except (KeyError, TypeError, ValueError):
        return NoAnswer(
            f"what answers at {admin.api_url} is not RabbitMQ's management API", "Correct SLUICE_RABBITMQ_API."
        )
    # Older versions write the tags as one text.
    known = tags.split(",") if isinstance(tags, str) else tags
    return BrokerFacts(user, "administrator" in known, alarms, unread, ahead, tells)


def takes_connections(settings: Settings) -> bool:
    """Whether RabbitMQ takes connections of the scheduler's user, whatever its management API does."""
    try:
        with core_app(settings).connection_for_write(connect_timeout=ANSWER_SECONDS) as connection:
            connection.connect()
    except BROKER_ERRORS:
        return False
    return True


def ask_ipfs(settings: Settings) -> IpfsFacts | NoAnswer:
    """Ask IPFS whether kubo's RPC API answers."""
    url = settings.ipfs_api.rstrip("/")
    fix = (
        "Start it, or correct SLUICE_IPFS_API. Until then tasks are computed and voted on, but none ends: machines keep"
        " their results and bring them once it answers; deadlines go on."
    )
    try:
        with http_client(url, timeout=ANSWER_SECONDS, answer_seconds=lambda: ANSWER_SECONDS) as http:
            answer = http.post("/api/v0/version").raise_for_status()
        return IpfsFacts(str(answer.json()["Version"]))
    except BadSetting as error:
        return NoAnswer(str(error), "")
    except httpx.HTTPStatusError as error:
        return NoAnswer(f"IPFS at {url} answers with HTTP status {error.response.status_code}", fix)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return NoAnswer(f"IPFS at {url} does not answer: {str(error) or type(error).__name__}", fix)
    except (KeyError, TypeError, ValueError):
        return NoAnswer(f"what answers at {url} is not kubo's RPC API", fix)


def http_clock_ahead(response: httpx.Response, now: float) -> float | None:
    """Seconds that the sender's clock is ahead, to the second, by the header `Date`; None without one."""
    said = read_http_date(response.headers.get("date"))
    return None if said is None else said.timestamp() + 0.5 - now
