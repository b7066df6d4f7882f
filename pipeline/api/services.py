"""What the API's routes work with, opened once per process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Self

import structlog
from pymongo.errors import PyMongoError

from chain.keystore import load_key
from chain.lane.store.lease import new_holder
from chain.rpc.client import Rpc
from chain.rpc.pool import RpcPool, connect
from config.celery_apps import core_app
from config.connections.ipfs import Ipfs
from config.http_server.rates import RateLimits
from config.settings import Settings
from config.values.endpoints import public_endpoints
from pipeline.api.auth.secret import KeyRing
from pipeline.api.limits.recent_answers import RecentAnswers
from pipeline.api.monitor import Monitor
from pipeline.api.results.lately_computed import LatelyComputed
from pipeline.api.results.refusals import Refusals
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.background import Background
from pipeline.broker.machine_names import MachineNames
from pipeline.broker.notify import Notifier
from pipeline.broker.relay import Relay
from pipeline.flow.machines.enrolment import SignInsUnderWay
from pipeline.probes import Probes
from pipeline.store.client import Store, database
from pipeline.store.hold import HoldSwitch
from pipeline.store.machine.challenges import Challenges
from protocol.errors import BadSetting
from protocol.types import Contract, TaskId, Wallet

log = structlog.get_logger(__name__)

#: Seconds for which an answer about what changes by the hour is given again.
SLOW_SECONDS = 60.0
#: Seconds from one notification to another that only tells of freed slots: a round of matching costs much the same for
#: one slot as for several, and machines with many slots free some each moment.
FREED_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class PoolAddresses:
    """Which pool this API serves; addresses in lower case."""

    hub: Contract
    workerpool: Contract
    scheduler: Wallet

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """From the settings and the scheduler's key. Raises BadSetting, BadKeystore."""
        if settings.hub is None or settings.workerpool is None:
            name = "SLUICE_HUB" if settings.hub is None else "SLUICE_WORKERPOOL"
            raise BadSetting(name=name, why="it is not set", fix="Set it to the contract's address.")
        return cls(Contract(settings.hub.lower()), Contract(settings.workerpool.lower()), load_key(settings).wallet)


class _Wake(Enum):
    """Kinds of notification beside the ids of tasks to advance."""

    ASSIGN = auto()
    ASSIGN_FREED = auto()
    LANE = auto()
    ORDERS = auto()


class BackgroundNotifier:
    """Publishes messages to the pipeline from a background thread, so that no request waits; the sweep repeats lost
    ones.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._background: Background[TaskId | _Wake] = Background("wake", self._deliver, pace=FREED_SECONDS)

    def send_advance(self, task_id: TaskId) -> None:
        """Publish `advance` for a task."""
        self._background.put(task_id)

    def send_assign(self, *, freed: bool = False) -> None:
        """Publish `assign`: a machine has signed in, or, if `freed`, one that was known has a free slot again."""
        if freed:
            self._background.put(_Wake.ASSIGN_FREED, paced=True)
        else:
            self._background.put(_Wake.ASSIGN)

    def send_lane(self) -> None:
        """Publish a run of the scheduler's lane, which has something to send."""
        self._background.put(_Wake.LANE)

    def send_orders(self) -> None:
        """Publish `orders`, which decides what the pool offers: machines went or came, or the operator asks for it."""
        self._background.put(_Wake.ORDERS)

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all is published; whether it is."""
        return self._background.flush(timeout)

    def stop(self, timeout: float = 2.0) -> None:
        """Publish what is queued, within `timeout` seconds, and disconnect."""
        self._background.stop(timeout)
        self._notifier.close()

    def _deliver(self, items: Sequence[TaskId | _Wake]) -> None:
        """Publish queued notifications, each task and each kind once."""
        tasks = dict.fromkeys(item for item in items if not isinstance(item, _Wake))
        self._notifier.send_advance(list(tasks))
        if _Wake.ASSIGN in items:
            self._notifier.send_assign()
        elif _Wake.ASSIGN_FREED in items:
            self._notifier.send_assign(freed=True)
        if _Wake.LANE in items:
            self._notifier.send_lane()
        if _Wake.ORDERS in items:
            self._notifier.send_orders()


@dataclass(frozen=True, slots=True)
class Services:
    """Everything behind the routes. `clock`: Unix seconds."""

    settings: Settings
    pool: PoolAddresses
    keys: KeyRing
    store: Store
    challenges: Challenges
    broker: BrokerAdmin
    notifier: BackgroundNotifier
    relay: Relay
    ipfs: Ipfs
    rpc: Rpc | RpcPool
    uploads: Path
    monitor: Monitor
    rates: RateLimits
    #: What IPFS and the disk did not take.
    refusals: Refusals = field(default_factory=Refusals)
    #: What machines that work alone are about to upload.
    computed: LatelyComputed = field(default_factory=LatelyComputed)
    signing_in: SignInsUnderWay = field(default_factory=SignInsUnderWay)
    #: What changes by the hour.
    slow_answers: RecentAnswers = field(default_factory=lambda: RecentAnswers(SLOW_SECONDS))
    clock: Callable[[], float] = time.time

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connect lazily to all of it; only key, secret and settings are read now. Raises BadSetting, BadKeystore."""
        pool = PoolAddresses.of(settings)
        refusals = Refusals()
        probes = Probes.open(settings, load_key(settings), refusals.facts)
        public_endpoints(settings)
        uploads = settings.home / "uploads"
        uploads.mkdir(parents=True, exist_ok=True)
        app = core_app(settings)
        store, notifier = Store.open(settings), BackgroundNotifier(Notifier(app, pool.scheduler))
        return cls(
            settings=settings,
            pool=pool,
            keys=KeyRing.of(settings),
            store=store,
            challenges=Challenges(database(settings)),
            broker=BrokerAdmin.from_settings(settings),
            notifier=notifier,
            relay=Relay(app, MachineNames(store.workers.names), settings.host_name),
            ipfs=Ipfs(settings.ipfs_api),
            rpc=connect(settings),
            uploads=uploads,
            monitor=Monitor(
                probes, partial(_log_up, settings), partial(store_hold, store.hold, notifier, new_holder())
            ),
            rates=RateLimits.of(settings),
            refusals=refusals,
        )

    def close(self) -> None:
        """Publish what is queued and disconnect."""
        self.monitor.close()
        self.notifier.stop()
        self.relay.stop()
        for part in (self.ipfs, self.broker, self.rpc):
            part.close()


def store_hold(switch: HoldSwitch, notifier: BackgroundNotifier, by: str, why: str | None) -> None:
    """Store, for every process, that the pool holds (`why`), or that it goes on (None). `by`: this process."""
    try:
        if why is None:
            switch.release(by)
        else:
            switch.hold(why, by)
    except PyMongoError as error:
        # Without the database nothing can be begun, and a hold ends by itself.
        log.info("The hold could not be stored.", action="hold_not_stored", why=str(error).partition(" (")[0])
    if why is None:
        notifier.send_assign()
        notifier.send_orders()


def _log_up(settings: Settings) -> None:
    """Log where the pool is reached, once it is up."""
    log.info(
        f"The pool is up at {settings.api_url}.",
        action="pool_up",
        api=settings.api_url,
        operations=f"http://{settings.operations_host}:{settings.operations_port}/health",
        flower=f"http://{settings.flower_host}:{settings.flower_port}",
    )
