"""The Celery apps: `core_app` of the scheduler, `pool_app` to publish to workers, `machine_app` of a worker machine.

No message is lost: quorum queues, publisher confirms, late acknowledgement. Any message may come twice: tasks are
idempotent. There is no result backend: the state is in the store.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import structlog
from celery import Celery
from celery.app.amqp import AMQP
from celery.concurrency import get_implementation
from celery.exceptions import SecurityWarning
from celery.loaders.app import AppLoader
from celery.signals import worker_process_init
from celery.utils.nodenames import default_nodename, host_format
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu import Connection, compression

from config import topology
from config.connections.broker_nodes import SEPARATOR, with_vhost
from config.connections.broker_tls import tls_trouble, url_options
from config.processes.per_process import PerProcess
from config.processes.supervisor import die_with_parent
from config.settings import Settings
from protocol.types import Wallet
from protocol.wire import BrokerAccess

log = structlog.get_logger(__name__)


@worker_process_init.connect
def _pool_child_dies_with_its_parent(**_: Any) -> None:
    """Make a pool child end with its Celery process: else it would still run a task when that one is restarted."""
    die_with_parent()


#: Publishing is repeated for longer than a restart of RabbitMQ takes (8-9 s measured), at short, even intervals.
PUBLISH_RETRY = {"max_retries": 60, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}
#: Seconds between AMQP heartbeats: after two without one the peer counts as dead. Machines are many, and each heartbeat
#: costs the broker; of the scheduler's processes, one that is cut off keeps its messages, and the lane, until then.
HEARTBEAT_SECONDS, CORE_HEARTBEAT_SECONDS = 20, 5


#: Seconds for which events for Flower are gathered into one message: they are only shown, nothing is decided by them.
EVENT_SECONDS = 2.0
#: Seconds between two of Celery's own heartbeats, by which Flower knows that a process is there.
NODE_SECONDS = 20.0

#: Seconds to wait for the broker's confirmation of a message. A whole number, as socket options have it.
CONFIRM_SECONDS = 5


def _refuse_compressed(_: bytes) -> bytes:
    """Raise for a compressed message, in place of kombu's encoders and decoders: these unpack a message before anything
    is checked, and 15 KB may become 400 MB.
    """
    raise ValueError("the message is compressed, and no message of Sluice is")


for _content_type in compression.encoders():
    compression.register(_refuse_compressed, _refuse_compressed, _content_type)


class NodeConnection(Connection):
    """kombu's connection, which also keeps, when it turns to another node of a cluster, a password that is a function,
    and the host name that the certificate must hold.
    """

    def switch(self, conn_str: str) -> None:
        """Turn to the node of this URL. kombu calls it when the one before does not answer."""
        made: Any = self
        before = made.password
        super().switch(conn_str)
        made.password = made.password or before
        if isinstance(made.ssl, dict):
            made.ssl = {**made.ssl, "server_hostname": made.hostname}


class SafeQueues(AMQP):
    """Celery's queues, except that a worker started without `-Q` consumes only PIPELINE_QUEUES.

    Celery would consume all that are declared: also the dead letters, and a lane, which allows one consumer only.
    """

    Connection = NodeConnection

    def Queues(self, queues: Any, *args: Any, **options: Any) -> Any:  # noqa: N802 - Celery's name
        """The declared queues, of which PIPELINE_QUEUES are consumed unless `-Q` says otherwise. Celery calls it."""
        made = super().Queues(queues, *args, **options)
        safe = [name for name in topology.PIPELINE_QUEUES if name in made]
        if safe:
            made.select(safe)
        return made


class SteadyPathLoader(AppLoader):
    """Celery's loader, except that it imports without putting the working directory into `sys.path` for a moment.

    Taking it out again shifts the entries under a search of `sys.path` in another thread, whose `import` then fails.
    """

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        """Import a module as any other import does, without the working directory. Raises ImportError."""
        return (imp or importlib.import_module)(module, package=package)


class ConfirmTimeoutCelery(Celery):
    """Celery whose every publish ends with a confirmation or a timeout: a broker with an alarm confirms nothing."""

    #: A class, not its name: Celery looks a name up by way of the working directory.
    loader_cls = SteadyPathLoader  # type: ignore[assignment]  # celery-types knows the name only
    amqp_cls = "config.celery_apps:SafeQueues"
    #: What the tasks of this app work with (connections, stores), one per process; set by who runs them.
    context: PerProcess[Any] | None = None

    def send_task(self, *args: Any, **options: Any) -> Any:
        """Send a task as Celery does; raises TimeoutError or OperationalError if the broker does not
        confirm in time.
        """
        options.setdefault("confirm_timeout", CONFIRM_SECONDS)
        return super().send_task(*args, **options)


class LeanConsumer(Consumer):
    """Celery's consumer without delayed delivery, gossip and remote control.

    Delayed delivery would declare 56 exchanges and queues, which a worker has no right to and Sluice does not use.
    Reconnects at short, even intervals, so that work goes on soon after a restart of the broker.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[valid-type, misc]  # celery-types calls it a variable
        """The steps that remain. The others require Mingle, Events and Heart, which do nothing when switched off."""

        default_steps: ClassVar[list[str]] = [
            "celery.worker.consumer.connection:Connection",
            "celery.worker.consumer.mingle:Mingle",
            "celery.worker.consumer.events:Events",
            "celery.worker.consumer.heart:Heart",
            "celery.worker.consumer.tasks:Tasks",
            "celery.worker.consumer.consumer:Evloop",
        ]

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying every half second until the worker has to stop."""
        conn.ensure_connection(
            lambda error, interval: log.warning(
                "Broker does not answer, trying again.",
                action="broker_retry",
                why=tls_trouble(error, conn.hostname) or str(error),
                seconds=interval,
            ),
            None,
            interval_start=0.2,
            interval_step=0.2,
            interval_max=0.5,
            callback=maybe_shutdown,
        )
        return conn


class CoreConsumer(LeanConsumer):
    """The consumer of the scheduler's processes: answers remote control, for `celery status` and Flower."""

    class Blueprint(LeanConsumer.Blueprint):
        """As LeanConsumer, with Celery's control queue."""

        default_steps: ClassVar[list[str]] = [
            *LeanConsumer.Blueprint.default_steps[:-1],
            "celery.worker.consumer.control:Control",
            LeanConsumer.Blueprint.default_steps[-1],
        ]

    #: Celery's own attributes; celery-types does not declare them.
    hub: Any
    _flush_events: Any
    #: Monotonic time at which what is gathered goes out.
    _events_at = 0.0

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # typed wrongly upstream
        """Send events about tasks together. Celery calls it with each one, and itself sends them at once."""
        now = time.monotonic()
        if self.hub and now >= self._events_at:
            self._events_at = now + EVENT_SECONDS
            self.hub.call_later(EVENT_SECONDS, self._flush_events)


class MachineConsumer(LeanConsumer):
    """The consumer of a worker machine, which has no right to send events: it sends none, whatever its flags are."""

    def __init__(self, on_task_request: Any, *, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        off = dict.fromkeys(("without_gossip", "without_mingle", "without_heartbeat"), True)
        options |= {"worker_options": (worker_options or {}) | off, "task_events": False}
        super().__init__(on_task_request, **options)


def _app(name: str, url: str, ca_file: Path | None, **conf: Any) -> ConfirmTimeoutCelery:
    """A Celery app with what all of Sluice's apps have in common; `conf` goes over it."""
    app = ConfirmTimeoutCelery(name, broker=url, set_as_current=False)
    app.conf.update(
        broker_use_ssl=url_options(url, ca_file),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_create_missing_queues=False,
        task_default_queue_type="quorum",
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry=True,
        task_publish_retry_policy=PUBLISH_RETRY,
        worker_prefetch_multiplier=1,
        **{
            "worker_consumer": "config.celery_apps:LeanConsumer",
            "worker_enable_remote_control": False,
            "broker_heartbeat": HEARTBEAT_SECONDS,
        }
        | conf,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options={"confirm_publish": True},
        broker_pool_limit=4,
    )
    return app


def route_lane(name: str, args: Sequence[Any], *_: object, **__: object) -> dict[str, Any] | None:
    """A Celery router: `lane.run` goes to the queue of the wallet that is its argument."""
    return {"queue": topology.lane_queue(Wallet(args[0]))} if name == topology.RUN_LANE else None


def core_app(settings: Settings, wallet: Wallet | None = None) -> ConfirmTimeoutCelery:
    """The scheduler's app on vhost `core`. `wallet`: whose lane queue is declared too (lower-case hex)."""
    queues = [*topology.pipeline_queues(), topology.dead_queue()]
    if wallet is not None:
        queues.append(topology.lane_queue(wallet))
    return _app(
        "sluice",
        with_vhost(settings.amqp_url.get_secret_value(), settings.amqp_core_vhost),
        settings.amqp_ca_file,
        task_queues=queues,
        task_default_queue=topology.PIPELINE_QUEUE,
        task_default_exchange=topology.CORE_EXCHANGE.name,
        task_default_exchange_type="topic",
        task_default_routing_key=topology.PIPELINE_QUEUE,
        task_routes=[topology.PIPELINE_ROUTES, route_lane],
        broker_heartbeat=CORE_HEARTBEAT_SECONDS,
        worker_send_task_events=True,
        # Only in this vhost, whose users are all the operator's. In vhost `pool` any worker could shut down the others.
        worker_consumer="config.celery_apps:CoreConsumer",
        worker_enable_remote_control=True,
        control_queue_exclusive=True,
    )


def pool_app(settings: Settings) -> Celery:
    """The scheduler's app on vhost `pool`: it publishes to worker queues and never consumes there.

    Every signature must name exchange and routing key; `mandatory` makes a missing queue an error.
    """
    return _app(
        "sluice-pool",
        with_vhost(settings.amqp_url.get_secret_value(), settings.amqp_pool_vhost),
        settings.amqp_ca_file,
        task_queues=[],
    )


def machine_app(wallet: Wallet) -> ConfirmTimeoutCelery:
    """A worker machine's app: consumes its own two queues with a stranger's permissions. See `connect_machine`."""
    compute = topology.compute_queue_name(wallet)
    return _app(
        "sluice-machine",
        "amqp://not-signed-in.invalid",
        None,
        task_queues=list(topology.worker_queues(wallet)),
        task_default_queue=compute,
        task_default_exchange=compute,
        task_default_exchange_type="direct",
        task_default_routing_key=compute,
        worker_consumer="config.celery_apps:MachineConsumer",
        worker_send_task_events=False,
    )


def connect_machine(
    app: Celery, access: BrokerAccess, ca_file: Path | None = None, password: Callable[[], str] | None = None
) -> None:
    """Set the broker of a machine's app. `password`: asked for at each connection, if it may differ from `access`'s.

    `ca_file`: PEM file of the CAs that may have signed the broker's certificate; None: the system's. Raises BadSetting.
    """
    scheme, user = "amqps" if access.tls else "amqp", quote(access.username, safe="")
    nodes = (f"{scheme}://{user}@{node.authority}" for node in access.nodes)
    url = with_vhost(SEPARATOR.join(nodes), access.vhost)
    app.conf.update(
        # kombu asks `broker_password` at each connection, if it is a function and the URL holds no password.
        broker_url=url,
        broker_password=password or access.password,
        broker_use_ssl=url_options(url, ca_file),
    )


def node_name(name: str, host: str | None = None) -> str:
    """The name of a Celery worker in Flower: `name` and the host's, which is the machine's own if `host` is None."""
    return host_format(default_nodename(f"{name}@{host or '%h'}"))


def warm_up(app: Celery) -> None:
    """Import and make what `consume` needs, in a parent that is about to fork: its children share the memory, and none
    spends a start on it. No connection is opened.
    """
    # ruff: noqa: F401, PLC0415
    import billiard.popen_fork
    import billiard.sharedctypes
    import billiard.synchronize
    import celery.app.amqp
    import celery.app.log
    import celery.apps.worker
    import celery.backends.base
    import celery.concurrency.prefork
    import celery.worker.autoscale
    import celery.worker.components
    import celery.worker.consumer
    import celery.worker.strategy
    import kombu.transport.pyamqp

    app.finalize()
    # Made on first use, and kept.
    assert app.amqp.queues is not None


def consume(
    app: Celery,
    queues: Sequence[str],
    *,
    name: str,
    processes: int,
    host: str | None = None,
    log_level: str = "warning",
) -> None:
    """Run a Celery prefork worker on these queues until SIGTERM. `name`, `host`: as for `node_name`.

    Not through Celery's command line, which imports a second of things that only a person at a prompt needs.
    """
    # Celery warns of root at each start. A worker machine has to be root (docs/quickstart/worker.md says why), and for
    # a scheduler the warning would come with each of its processes.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = app.Worker(
        hostname=node_name(name, host),
        queues=",".join(queues),
        concurrency=processes,
        pool_cls=get_implementation("prefork"),
        loglevel=log_level.upper(),
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        heartbeat_interval=NODE_SECONDS,
    )
    worker.start()
    sys.exit(worker.exitcode)
