"""What a worker process works with: the machine's configuration, shared, and connections of its own.

`Machine` is made before any fork and never changes; `WorkerContext` is opened in each process that does work, since
neither SQLite nor HTTP connections may cross a fork.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

from chain.contracts.hub import Hub
from chain.lane.model.intent import LaneId
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.poco import poco_lane
from chain.lane.run import Lane
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.client import Rpc
from chain.rpc.pool import RpcPool, connect
from config.settings import Settings
from protocol.errors import BadSetting
from protocol.ethereum.signing import Key
from protocol.poco.tags import GPU_BIT, join_tags, make_tag
from protocol.types import ZERO_HASH, Contract, Hash32, Wallet
from protocol.wire import IMAGE_BYTES, Capabilities, PoolConfig, Session
from workers.care.lane_wakeup import LaneWakeup
from workers.data.download import DownloadPolicy
from workers.data.layout import Layout, layout_of
from workers.data.outputs import ResultLimits
from workers.data.registry import RegistryPolicy, read_credentials
from workers.enclave import choice as enclave_choice
from workers.enclave.port import Framework
from workers.money.ledger import Ledger
from workers.money.limits import lane_policy
from workers.pool.api import PoolApi, SignedInApi
from workers.pool.reports import Reports
from workers.pool.session import SessionFile
from workers.pool.settings import gateway_of, node_of_pool
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.image import ImageRules
from workers.sandbox.profile import Sandbox, sandbox_of
from workers.sandbox.spec import EngineResources, Limits, read_engine_resources
from workers.slots import RESERVED_BYTES, Slots, at_most_gpus, fitting, set_by_operator
from workers.task.journal import Journal


@dataclass(frozen=True)
class Machine:
    """One worker machine: its settings, its wallet and the pool it serves."""

    settings: Settings
    key: Key
    pool: PoolConfig
    api: PoolApi

    @property
    def wallet(self) -> Wallet:
        """The machine's wallet."""
        return self.key.wallet

    @cached_property
    def layout(self) -> Layout:
        """The machine's folders."""
        return layout_of(self.settings.home, self.wallet, self.settings.least_free_bytes)

    @cached_property
    def session(self) -> SessionFile:
        """The machine's session with the pool."""
        return SessionFile(self.layout, self.sign_in)

    def sign_in(self, *, take_over: bool = False) -> Session:
        """Sign in at the pool. `take_over`: cut off another machine that works with this wallet. Raises Refused."""
        return self.api.sign_in(
            self.key,
            self.pool,
            self.capabilities,
            machine=self.layout.machine_id(),
            take_over=take_over,
            invite=None if self.settings.invite is None else self.settings.invite.get_secret_value(),
        )

    @property
    def capabilities(self) -> Capabilities:
        """What this machine offers, by what its Docker engine says. Raises EngineUnavailable."""
        return Capabilities(
            name=self.settings.worker_name,
            version=version("sluice"),
            slots=self.slots.count,
            cpus=min(self.engine_resources.cpus, 4096),
            memory_bytes=self.engine_resources.memory_bytes,
            tag=self.tag,
        )

    @property
    def slots(self) -> Slots:
        """How many containers run at once. Raises EngineUnavailable if that goes by the engine."""
        number = self.settings.slots
        if number == "auto":
            found = fitting(self.engine_resources, self.memory_per_slot, self.pool.most_slots)
        else:
            found = set_by_operator(number)
        return at_most_gpus(len(self.gpus), found)

    @property
    def gpus(self) -> tuple[str, ...]:
        """Ids of the GPUs that apps may use. Each once."""
        return tuple(sorted(listed(self.settings.gpus)))

    @cached_property
    def framework(self) -> Framework | None:
        """The kind of enclave that this machine runs, if any. Raises BadSetting."""
        return enclave_choice.chosen(self.settings, self.pool, self.key)

    @property
    def tag(self) -> Hash32:
        """The tag bits that this machine offers: enclave and GPU. Raises BadSetting."""
        return join_tags(
            make_tag(GPU_BIT) if self.gpus else ZERO_HASH,
            ZERO_HASH if self.framework is None else self.framework.tag,
        )

    @cached_property
    def engine_resources(self) -> EngineResources:
        """The engine's processors and memory. Raises EngineUnavailable."""
        engine = Engine(self.settings.docker_host)
        try:
            return read_engine_resources(engine.info())
        finally:
            engine.close()

    @cached_property
    def sandbox(self) -> Sandbox:
        """How apps are confined here. Raises BadSetting."""
        return sandbox_of(self.settings)

    @property
    def policy(self) -> LanePolicy:
        """The lane's fee policy, with this machine's own limits."""
        return lane_policy(self.settings, node_of_pool=node_of_pool(self.settings))

    @property
    def memory_per_slot(self) -> int:
        """Bytes of memory that one app gets: the pool's promise, or this machine's own setting if that is less. More
        than promised would let an app succeed here that fails elsewhere.
        """
        return min(self.pool.memory_per_slot, self._own("memory_per_slot", self.pool.memory_per_slot))

    @property
    def keeps_memory_promise(self) -> bool:
        """Whether an app that runs out of memory here had all that the pool promises: there is that much for every slot
        beside what the system, the engine and this machine's own processes take.
        """
        needed = self.slots.count * self.memory_per_slot + RESERVED_BYTES
        full = needed <= self.engine_resources.memory_bytes
        return full and self.memory_per_slot >= self.pool.memory_per_slot

    @property
    def limits(self) -> Limits:
        """What one container may use. Raises EngineUnavailable."""
        return Limits.of_slot(
            memory_per_slot=self.memory_per_slot, cpus=self.engine_resources.cpus, slots=self.slots.count
        )

    def _own(self, setting: str, pool: int) -> int:
        """This machine's own limit; the pool's if the operator has set none."""
        return int(getattr(self.settings, setting)) if setting in self.settings.model_fields_set else pool

    @property
    def downloads(self) -> DownloadPolicy:
        """The rules for downloads of this machine."""
        gateway, private_gateway = gateway_of(self.settings, self.pool)
        return DownloadPolicy(
            gateway=gateway,
            private_gateway=private_gateway,
            max_bytes=min(self._own("download_max_bytes", self.pool.download_max_bytes), self.pool.download_max_bytes),
            allow_private=self.settings.allow_private_downloads,
            pool_max_bytes=self.pool.download_max_bytes,
        )

    @property
    def images(self) -> ImageRules:
        """The rules for app images. Raises BadSetting for a file of logins that cannot be read."""
        settings = self.settings
        policy = RegistryPolicy(
            max_bytes=settings.image_max_bytes,
            pool_max_bytes=IMAGE_BYTES,
            registries=listed(settings.image_registries),
            allow_private=settings.allow_private_downloads,
            credentials=_credentials(settings),
        )
        return ImageRules(policy, listed(settings.local_images), settings.image_disk_bytes)

    @property
    def result_limits(self) -> ResultLimits:
        """How large a result may be."""
        pool = self.pool.max_result_bytes
        return ResultLimits(min(self._own("max_result_bytes", pool), pool), pool_bytes=pool)


class WorkerContext:
    """One process's connections. `clock` gives Unix seconds."""

    def __init__(self, machine: Machine, clock: Callable[[], float] = time.time) -> None:
        self.machine = machine
        self.layout = machine.layout
        self.now = clock

    @cached_property
    def journal(self) -> Journal:
        """The journal."""
        return Journal(self.layout.journal)

    @cached_property
    def engine(self) -> Engine:
        """The Docker engine. Raises EngineUnavailable."""
        return Engine(self.machine.settings.docker_host)

    @cached_property
    def pool(self) -> SignedInApi:
        """The pool's API, with this machine's token."""
        session = self.machine.session
        return SignedInApi(self.machine.api, lambda: session.current().token, lambda old: session.renew(old).token)

    @cached_property
    def reports(self) -> Reports:
        """Reports to the pool."""
        return Reports(self.pool)

    @property
    def chain_id(self) -> int:
        """The pool's chain."""
        return self.machine.pool.chain_id

    @property
    def initializer(self) -> Wallet:
        """The wallet that initializes the pool's tasks."""
        return Wallet(self.machine.pool.scheduler)

    @cached_property
    def rpc(self) -> Rpc | RpcPool:
        """The Ethereum node."""
        return connect(self.machine.settings)

    @cached_property
    def lane_store(self) -> SqliteStore:
        """The lane's SQLite store."""
        return SqliteStore(self.layout.lane)

    @cached_property
    def lane_wakeup(self) -> LaneWakeup:
        """Wakes the process that runs the lane."""
        return LaneWakeup(self.layout.lane_wakeup)

    @cached_property
    def lane(self) -> Lane:
        """The lane of the wallet: the queue of its transactions."""
        machine = self.machine
        worth = self.ledger.worth_of
        return poco_lane(machine.settings, self.rpc, machine.key, self.lane_store, machine.policy, worth=worth)

    @cached_property
    def ledger(self) -> Ledger:
        """What this machine spends and risks."""
        machine = self.machine
        return Ledger(
            settings=machine.settings,
            policy=machine.policy,
            layout=self.layout,
            journal=self.journal,
            store=self.lane_store,
            lane=LaneId(self.chain_id, machine.wallet),
            clock=self.now,
            hub=lambda: Hub(self.rpc, Contract(machine.pool.hub)),
        )

    def close(self) -> None:
        """Send the queued reports and close what was opened."""
        opened = self.__dict__
        if "reports" in opened:
            self.reports.close()
        if "journal" in opened:
            self.journal.close()
        if "engine" in opened:
            self.engine.close()
        if "rpc" in opened:
            self.rpc.close()


def listed(text: str) -> frozenset[str]:
    """The parts of a setting's value that are separated by commas."""
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def _credentials(settings: Settings) -> dict[str, str]:
    """Credentials by registry, from the file of the settings. Raises BadSetting."""
    file = settings.registry_credentials_file
    if file is None:
        return {}
    try:
        return read_credentials(file.read_text())
    except (OSError, ValueError, AttributeError) as error:
        raise BadSetting(
            name="SLUICE_REGISTRY_CREDENTIALS_FILE",
            why=f"{file} cannot be read as Docker's config.json ({type(error).__name__})",
            fix='Write {"auths": {"registry.example": {"auth": "<base64 of user:password>"}}} into it.',
        ) from error
