"""A client of RabbitMQ's management API: virtual hosts, machines' users and queues, revocation.

What a machine has there, and what stays open to it, is in `pipeline.broker.machine_rights`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx
import structlog

from config import topology
from config.celery_apps import pool_app
from config.connections import broker_nodes
from config.connections.http_client import http_client
from config.http_server.turns import Turns
from config.settings import Settings
from pipeline.broker import presence, users
from pipeline.broker.machine_queues import MachineQueues
from pipeline.broker.machine_rights import LIMITS, new_password, worker_permissions, worker_queue_arguments
from pipeline.broker.queue_count import QueueCount
from protocol.errors import BrokerRefused, BrokerUnavailable
from protocol.types import Wallet

log = structlog.get_logger(__name__)

#: Deliveries of a dead letter before RabbitMQ drops it: listing the queue counts as one, so far more than ever needed.
DEAD_LOOKS = 1_000_000
#: Seconds to delete an exchange that may have a great many bindings (an older release let workers make them), or a
#: virtual host with the queues of hundreds of machines.
SWEEP_SECONDS = 60.0
#: Machines that are given queues and users at a time: the management API does one after the other anyway, and of many
#: that ask at once it would answer none in time.
ENROLMENTS_AT_ONCE = 4
#: Sign-ins that wait for their turn at a time, and for how many seconds: a machine gives up after five. Each holds one
#: of the API's 40 threads, of which pings and reports need some, however many wallets sign in.
MOST_WAITING, TURN_SECONDS = 12, 4.0
#: Seconds for which the number of RabbitMQ's nodes is remembered: a pool that grows gets replicated queues then.
NODES_SECONDS = 60.0
#: Seconds to connect to one of several nodes of RabbitMQ.
CONNECT_SECONDS = 1.0
#: Name under which all queues of vhost `pool` are counted together.
MACHINES_QUEUES = "machines"


class BrokerAdmin:
    """RabbitMQ's management API. Every method is idempotent; all raise BrokerUnavailable."""

    def __init__(
        self,
        api_urls: Sequence[str],
        username: str,
        password: str,
        *,
        core: str = "core",
        pool: str = "pool",
        flower: str = "flower",
        timeout: float = 5.0,
        machine_queues: MachineQueues | None = None,
    ) -> None:
        """`api_urls`: of each node, without path or credentials; the next one is asked where one does not answer.
        `flower`: name of Flower's user; `timeout` in seconds per request. `machine_queues`: declares them over AMQP;
        without it, they are made by the management API.
        """
        self._username = username
        self._core, self._pool, self._flower = core, pool, flower
        # Of several nodes, one that is cut off must not take the time in which another would have answered.
        self._connect_seconds = timeout if len(api_urls) == 1 else min(timeout, CONNECT_SECONDS)
        #: The node that answered last comes first.
        self._nodes = [
            (url, http_client(f"{url.rstrip('/')}/api", auth=(username, password), timeout=self._limits(timeout)))
            for url in api_urls
        ]
        self._machine_queues = machine_queues
        self._enrolments = Turns(ENROLMENTS_AT_ONCE, waiting=MOST_WAITING)
        #: Whether a user's limits can be set together with its password; None: not seen yet.
        self._limits_of_user: bool | None = None
        #: Whether RabbitMQ has several nodes, and when that was read, by the monotonic clock.
        self._clustered, self._counted_at = False, float("-inf")

    @classmethod
    def from_settings(cls, settings: Settings, *, timeout: float = 5.0) -> Self:
        """A client with the scheduler's own broker user, which must have the tag `administrator`."""
        parts = urlsplit(broker_nodes.amqp_urls(settings)[0])
        return cls(
            broker_nodes.api_urls(settings),
            parts.username or "guest",
            parts.password or "guest",
            core=settings.amqp_core_vhost,
            pool=settings.amqp_pool_vhost,
            flower=users.flower_user(settings),
            timeout=timeout,
            machine_queues=MachineQueues(pool_app(settings)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to RabbitMQ."""
        for _, http in self._nodes:
            http.close()
        if self._machine_queues is not None:
            self._machine_queues.close()

    @property
    def api_url(self) -> str:
        """The node that answered last."""
        return self._nodes[0][0]

    def identity(self) -> httpx.Response:
        """The user that these credentials belong to: JSON with `name` and `tags`. Raises BrokerRefused."""
        return self._call("GET", "/whoami")

    def alarms(self) -> tuple[str, ...]:
        """Resources that the broker is short of; while there are any, it takes no messages."""
        try:
            self._call("GET", "/health/checks/alarms")
        except BrokerRefused as error:
            if error.fields["status"] != httpx.codes.SERVICE_UNAVAILABLE:
                raise
            return (str(error.fields["why"]),)
        return ()

    def unread(self, queues: Sequence[str]) -> tuple[str, ...]:
        """Which of these queues of vhost `core` do not exist or have no consumer. RabbitMQ's statistics lag by 5 s."""
        rows = self._call("GET", f"/queues/{_part(self._core)}", missing_ok=True)
        counts = {row["name"]: row.get("consumers", 0) for row in rows.json()} if rows.is_success else {}
        return tuple(name for name in queues if not counts.get(name))

    def queues(self) -> list[QueueCount]:
        """Queues of vhost `core`, by name. RabbitMQ's statistics lag by 5 s."""
        return sorted(self._counts(self._core), key=lambda queue: queue.name)

    def machines_queues(self) -> QueueCount:
        """All queues of vhost `pool` as one. With thousands of machines it takes RabbitMQ seconds to list them."""
        machines = self._counts(self._pool)
        return QueueCount(
            MACHINES_QUEUES,
            sum(each.ready for each in machines),
            sum(each.unacknowledged for each in machines),
            sum(each.consumers for each in machines),
            len(machines),
        )

    def machines(self) -> tuple[frozenset[Wallet], frozenset[str]]:
        """(machines that have a user on vhost `pool`, names of the queues there). Two requests, however many."""
        admitted = self._call("GET", f"/vhosts/{_part(self._pool)}/permissions").json()
        queues = self._call("GET", f"/queues/{_part(self._pool)}?columns=name").json()
        names = (users.wallet_of_user(self._pool, str(row["user"])) for row in admitted)
        return (
            frozenset(name for name in names if name is not None),
            frozenset(str(row["name"]) for row in queues),
        )

    def _counts(self, vhost: str) -> list[QueueCount]:
        """The queues of a vhost with their messages and consumers. Raises BrokerUnavailable."""
        fields = "name,messages_ready,messages_unacknowledged,consumers"
        return [QueueCount.of(row) for row in self._call("GET", f"/queues/{_part(vhost)}?columns={fields}").json()]

    def memory(self) -> int:
        """Bytes of memory that all nodes use. RabbitMQ's statistics lag by 5 s."""
        return sum(node.get("mem_used", 0) for node in self._call("GET", "/nodes?columns=mem_used").json())

    def sent_by_machines(self) -> Counter[Wallet]:
        """Bytes that each machine has sent on connections that are open. RabbitMQ's statistics lag by 5 s."""
        sent: Counter[Wallet] = Counter()
        for row in self._call("GET", f"/vhosts/{_part(self._pool)}/connections?columns=user,recv_oct").json():
            if (wallet := users.wallet_of_user(self._pool, str(row.get("user")))) is not None:
                sent[wallet] += row.get("recv_oct", 0)
        return sent

    def tells_of_cuts(self) -> bool:
        """Whether RabbitMQ has the exchange of events that tells `pipeline.broker.presence` of cut connections."""
        exchange = f"{_part(presence.VHOST)}/{presence.EXCHANGE}"
        return self._call("GET", f"/exchanges/{exchange}", missing_ok=True).is_success

    def prepare(self) -> None:
        """Make vhosts `core` and `pool`, with the scheduler's user in both, and the queue of dead letters.

        The other queues of `core` are declared by their consumers. The queue of dead letters has no consumer, and
        without it a message that was delivered too often would be lost.
        """
        for vhost in (self._core, self._pool):
            self._call("PUT", f"/vhosts/{_part(vhost)}")
            self._permit(vhost, self._username, users.ALL_PERMISSIONS)
        core, exchange, dead = _part(self._core), topology.CORE_EXCHANGE, topology.DEAD_QUEUE
        self._call("PUT", f"/exchanges/{core}/{exchange.name}", {"type": exchange.type, "durable": True})
        self._call("PUT", f"/queues/{core}/{dead}", {"durable": True, "arguments": topology.QUORUM})
        self._call("POST", f"/bindings/{core}/e/{exchange.name}/q/{dead}", {"routing_key": dead})
        # A policy, since arguments of a queue that exists cannot be changed.
        # RabbitMQ 4 counts each `get` on a quorum queue as a delivery, and drops a message after 20.
        limit = {"max-length": topology.DEAD_LENGTH, "overflow": "drop-head", "delivery-limit": DEAD_LOOKS}
        policy = {"pattern": f"^{dead}$", "apply-to": "queues", "definition": limit}
        self._call("PUT", f"/policies/{core}/{dead}", policy)
        self._remove_shared_users()

    def _remove_shared_users(self) -> None:
        """Delete machines' users that an older release named without the vhost: these machines sign in again."""
        for row in self._call("GET", f"/vhosts/{_part(self._pool)}/permissions").json():
            user = str(row["user"])
            if users.wallet_of_user(self._pool, user) is None and users.is_wallet(user):
                self._call("DELETE", f"/users/{user}", missing_ok=True)
                log.info("A machine gets a user of this pool.", action="broker_user_replaced", wallet=user)

    def remove_vhosts(self) -> None:
        """Delete both vhosts with all that is in them, and the users made by `enrol`: for pools of a demo or a test."""
        self.dismiss_flower()
        self.dismiss_monitor()
        admitted = self._call("GET", f"/vhosts/{_part(self._pool)}/permissions", missing_ok=True)
        for row in admitted.json() if admitted.is_success else ():
            if (wallet := users.wallet_of_user(self._pool, row["user"])) is not None:
                self.revoke(wallet)
        for vhost in (self._core, self._pool):
            self._call("DELETE", f"/vhosts/{_part(vhost)}", missing_ok=True, timeout=SWEEP_SECONDS)

    def enrol(self, wallet: Wallet, *, new: bool = False) -> str:
        """Give a worker its exchange, queues and user, and return its new password; a former one stops working. `new`:
        it never had a user here.

        Connections that are open stay: a machine that signs in again need not restart. But a user with the rights that
        an older release gave is deleted with all it had: an open channel keeps the rights it began with (measured).
        """
        with self._enrolments.taken(TURN_SECONDS) as mine:
            if mine:
                return self._enrol(wallet, new=new)
        raise BrokerUnavailable(what=self.api_url, why="too many machines sign in at once")

    def _enrol(self, wallet: Wallet, *, new: bool) -> str:
        """Make a machine's exchange, queues and user; returns the new password. Raises BrokerUnavailable."""
        replicated = self._is_cluster()
        if not new:
            self._remove_outdated(wallet, replicated=replicated)
        if self._machine_queues is None or not self._machine_queues.declare(wallet, replicated=replicated):
            self._make_queues(wallet, replicated=replicated)
        user, password = users.machine_user(self._pool, wallet), new_password()
        self._call("PUT", f"/users/{_part(user)}", {"password": password, "tags": "", "limits": LIMITS})
        if self._limits_of_user is None:
            # A release that ignores them there reports no error.
            found = self._call("GET", f"/user-limits/{_part(user)}").json()
            self._limits_of_user = any(row["value"] == LIMITS for row in found)
        if not self._limits_of_user:
            for limit, value in LIMITS.items():
                self._call("PUT", f"/user-limits/{_part(user)}/{limit}", {"value": value})
        # Permissions last: until then the user can sign in and do nothing.
        self._permit(self._pool, user, worker_permissions(wallet))
        log.info("Worker has its queues.", action="broker_enrolled", wallet=wallet)
        return password

    def _make_queues(self, wallet: Wallet, *, replicated: bool) -> None:
        """Make what a machine lacks of its exchange and queues; the others stay. Raises BrokerUnavailable."""
        pool, exchange = _part(self._pool), topology.compute_queue_name(wallet)
        self._call("PUT", f"/exchanges/{pool}/{exchange}", {"type": "direct", "durable": True})
        for queue in (exchange, topology.tx_queue_name(wallet)):
            path = f"/queues/{pool}/{queue}"
            if not self._call("GET", f"{path}?columns=name", missing_ok=True).is_success:
                self._call("PUT", path, {"durable": True, "arguments": worker_queue_arguments(replicated=replicated)})
            self._call("POST", f"/bindings/{pool}/e/{exchange}/q/{queue}", {"routing_key": queue})

    def _remove_outdated(self, wallet: Wallet, *, replicated: bool) -> None:
        """Remove what a machine has with the rights of an older release, and queues on a single node of what has become
        a cluster since. Raises BrokerUnavailable.
        """
        pool, rights = _part(self._pool), worker_permissions(wallet)
        known = self._call(
            "GET", f"/permissions/{pool}/{_part(users.machine_user(self._pool, wallet))}", missing_ok=True
        )
        if known.is_success and {name: known.json()[name] for name in rights} != rights:
            log.info("Worker gets the rights of this release.", action="broker_rights_replaced", wallet=wallet)
            self.remove(wallet)
        elif known.is_success and replicated:
            queue = f"/queues/{pool}/{topology.compute_queue_name(wallet)}?columns=type"
            found = self._call("GET", queue, missing_ok=True)
            if found.is_success and found.json().get("type") == topology.CLASSIC[topology.QUEUE_TYPE]:
                log.info("Worker gets queues on every node.", action="broker_queues_replaced", wallet=wallet)
                self._remove_queues(wallet)

    def _is_cluster(self) -> bool:
        """Whether RabbitMQ has several nodes, running or not, as of NODES_SECONDS ago. Raises BrokerUnavailable."""
        now = time.monotonic()
        if now - self._counted_at > NODES_SECONDS:
            self._clustered, self._counted_at = len(self._call("GET", "/nodes?columns=name").json()) > 1, now
        return self._clustered

    def revoke(self, wallet: Wallet) -> None:
        """Delete a worker's user, which disconnects it at once; taking its permissions alone would not (measured)."""
        self._call("DELETE", f"/users/{_part(users.machine_user(self._pool, wallet))}", missing_ok=True)
        log.info("Worker is cut off from the broker.", action="broker_revoked", wallet=wallet)

    def remove(self, wallet: Wallet) -> None:
        """Revoke a worker and delete its queues and exchange with whatever they hold."""
        self.revoke(wallet)
        self._remove_queues(wallet)
        exchange = topology.compute_queue_name(wallet)
        self._call("DELETE", f"/exchanges/{_part(self._pool)}/{exchange}", missing_ok=True, timeout=SWEEP_SECONDS)

    def _remove_queues(self, wallet: Wallet) -> None:
        """Delete a worker's queues. Raises BrokerUnavailable."""
        pool = _part(self._pool)
        for queue in (topology.compute_queue_name(wallet), topology.tx_queue_name(wallet)):
            self._call("DELETE", f"/queues/{pool}/{queue}", missing_ok=True, timeout=SWEEP_SECONDS)

    def admit_flower(self) -> str:
        """Make Flower's user on vhost `core` and return its new password."""
        password = new_password()
        user = self._flower
        self._call("PUT", f"/users/{_part(user)}", {"password": password, "tags": "monitoring"})
        self._permit(self._core, user, users.FLOWER_PERMISSIONS)
        return password

    def dismiss_flower(self) -> None:
        """Delete Flower's RabbitMQ user."""
        self._call("DELETE", f"/users/{_part(self._flower)}", missing_ok=True)

    def admit_monitor(self, password: str) -> None:
        """Make the read-only user for people: it sees queues and counts, reads no message and changes nothing."""
        user = users.monitor_user(self._core)
        self._call("PUT", f"/users/{_part(user)}", {"password": password, "tags": "monitoring"})
        for vhost in (self._core, self._pool):
            self._permit(vhost, user, users.NO_PERMISSIONS)

    def dismiss_monitor(self) -> None:
        """Delete the read-only user for people."""
        self._call("DELETE", f"/users/{_part(users.monitor_user(self._core))}", missing_ok=True)

    def _permit(self, vhost: str, user: str, permissions: dict[str, str]) -> None:
        """Set a user's permissions in a vhost. Raises BrokerUnavailable."""
        self._call("PUT", f"/permissions/{_part(vhost)}/{_part(user)}", dict(permissions))

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        missing_ok: bool = False,
        timeout: float | None = None,
    ) -> httpx.Response:
        """One request to RabbitMQ's management API. `missing_ok`: a 404 is an answer, not an error.

        Raises BrokerUnavailable, BrokerRefused.
        """
        answer = self._answer(method, path, body, timeout)
        if answer.is_success or (missing_ok and answer.status_code == 404):
            return answer
        # The body may repeat parts of the request, but never a password: RabbitMQ quotes only names and arguments.
        raise BrokerRefused(
            what=self.api_url, request=f"{method} {path}", status=answer.status_code, why=_reason(answer)
        )

    def _limits(self, timeout: float) -> httpx.Timeout:
        """Timeouts of a request."""
        return httpx.Timeout(timeout, connect=self._connect_seconds)

    def _answer(self, method: str, path: str, body: dict[str, Any] | None, timeout: float | None) -> httpx.Response:
        """The answer of the first node that gives one, so a node may get a request twice. Raises BrokerUnavailable."""
        # Other threads may turn to another node meanwhile: each request asks every node of its own list once.
        nodes = self._nodes
        for place, (url, http) in enumerate(nodes):
            limits = http.timeout if timeout is None else self._limits(timeout)
            try:
                answer = http.request(method, path, json=body, timeout=limits)
            except httpx.HTTPError as error:
                silent = BrokerUnavailable(what=url, why=str(error) or type(error).__name__)
                continue
            if place:
                # For the next request too: to wait for a node that is cut off takes its whole time-out.
                self._nodes = [*nodes[place:], *nodes[:place]]
            return answer
        raise silent


def _reason(answer: httpx.Response) -> str:
    """Why the API refuses, in its own text, with the resources that RabbitMQ is short of, if any."""
    try:
        body = answer.json()
        said = str(body.get("reason") or body["error"])
        short = sorted({str(alarm.get("resource", alarm)) for alarm in body.get("alarms", ())})
    except (ValueError, KeyError, AttributeError, TypeError):
        return answer.text[:200] or "without a reason"
    return f"{said[:200]} ({', '.join(short)[:100]})" if short else said[:200]


def _part(name: str) -> str:
    """A name as part of a URL's path."""
    return quote(name, safe="")
