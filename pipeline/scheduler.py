"""What every scheduler process works with, made once per process: stores, node, broker, lane, key, clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import structlog
from celery import Celery

from chain.contracts.ens_names import with_addresses
from chain.contracts.hub import Hub
from chain.keystore import load_key
from chain.lane.rules.poco import poco_lane
from chain.lane.run import Lane
from chain.lane.store.mongo import MongoStore
from chain.rpc.pool import connect
from config.celery_apps import core_app, pool_app
from config.connections.mongodb import while_indexing
from config.settings import Settings
from pipeline.broker import segments
from pipeline.broker.link import BrokerLink
from pipeline.broker.machine_names import MachineNames
from pipeline.broker.notify import Notifier
from pipeline.broker.relay import Relay
from pipeline.broker.segments import Segment
from pipeline.domain.records import DealRecord, TaskRecord
from pipeline.domain.replicas import Timeouts
from pipeline.flow.chain_time import ChainTime
from pipeline.flow.challenges import Challenges
from pipeline.flow.ingest import RegistryCache
from pipeline.flow.transactions import Transactions
from pipeline.store.client import Store, database
from pipeline.store.hold import Begins
from protocol.errors import BadSetting
from protocol.ethereum.signing import Key
from protocol.types import Contract, DealId

log = structlog.get_logger(__name__)

#: Deals kept in memory by a process; a deal is read for each assignment.
DEALS_KEPT = 2000


@dataclass(slots=True)
class Scheduler:
    """One process's share of the scheduler. Not for several threads at a time."""

    settings: Settings
    workerpool: Contract
    key: Key
    store: Store
    hub: Hub
    lane: Lane
    lane_store: MongoStore
    transactions: Transactions
    #: vhost core, for the scheduler's own tasks.
    core: Celery
    #: vhost pool, for worker machines.
    pool: Celery
    notifier: Notifier
    pool_link: BrokerLink
    #: What the scheduler itself did, for Flower.
    relay: Relay
    registry_cache: RegistryCache
    timeouts: Timeouts
    #: The time by which deadlines are judged where this machine's clock is wrong.
    chain_time: ChainTime
    #: None: the pool serves no enclaves.
    challenges: Challenges | None = None
    #: Unix seconds.
    clock: Callable[[], float] = time.time
    _deals: dict[DealId, DealRecord] = field(default_factory=dict)

    @classmethod
    def open(cls, settings: Settings, core: Celery | None = None) -> Scheduler:
        """The scheduler of these settings; connects on first use. Raises BadSetting, BadKeystore."""
        settings, key = with_addresses(settings), load_key(settings)
        hub, store = Hub(connect(settings), _address(settings.hub, "SLUICE_HUB")), Store.open(settings)
        lane_store = MongoStore(database(settings))
        lane = poco_lane(settings, hub.rpc, key, lane_store)
        core = core or core_app(settings, key.wallet)
        pool = pool_app(settings)
        return cls(
            settings=settings,
            workerpool=_address(settings.workerpool, "SLUICE_WORKERPOOL"),
            key=key,
            store=store,
            hub=hub,
            lane=lane,
            lane_store=lane_store,
            transactions=Transactions(settings.chain_id, key.wallet, lane),
            core=core,
            pool=pool,
            notifier=Notifier(core, key.wallet),
            pool_link=BrokerLink(pool),
            relay=Relay(core, MachineNames(store.workers.names), settings.host_name),
            registry_cache=RegistryCache(hub),
            timeouts=Timeouts.of(settings),
            chain_time=ChainTime(hub.rpc, store.chain.cursor, settings.block_time),
            challenges=Challenges.of(settings, key, store.challenges, Notifier(core, key.wallet)),
        )

    def ensure_indexes(self) -> None:
        """Create every index that is missing, the lane's too; cheap when all exist."""
        self.store.ensure_indexes()
        with while_indexing():
            self.lane_store.ensure_indexes()

    def deals(self, tasks: Collection[TaskRecord]) -> dict[DealId, DealRecord]:
        """The deals of these tasks, from memory or from the store; unknown ones are left out. One that a reorg has
        brought into another block is read again, since it may have other terms.
        """
        blocks = {task.deal_id: task.matched_block for task in tasks}
        deal_ids = blocks.keys()
        missing = {
            deal_id
            for deal_id, block in blocks.items()
            if deal_id not in self._deals or self._deals[deal_id].matched_block != block
        }
        if missing:
            if len(self._deals) > DEALS_KEPT:
                self._deals.clear()
                missing = {*deal_ids}
            self._deals.update({deal.deal_id: deal for deal in self.store.deals.load_deals(missing)})
        return {deal_id: self._deals[deal_id] for deal_id in deal_ids if deal_id in self._deals}

    def begins(self) -> Begins:
        """What keeps the pool from new work now; asked before anything new is begun. Raises PyMongoError."""
        return self.store.hold.begins()

    def publish(self, messages: Sequence[Segment]) -> None:
        """Send segments to worker machines; one without a queue counts as silent. Raises BrokerUnavailable."""
        if not messages:
            return
        for wallet in segments.publish(self.pool_link, messages):
            log.warning("Worker has no queue.", action="worker_absent", wallet=wallet)
            self.store.workers.mark_without_queue(wallet)

    def close(self) -> None:
        """Disconnect from the broker."""
        self.relay.stop()
        if self.challenges is not None:
            self.challenges.stop()
        self.notifier.close()
        self.pool_link.close()


def _address(value: str | None, name: str) -> Contract:
    """A contract's address from its setting. Raises BadSetting if it is not set."""
    if value is None:
        raise BadSetting(name=name, why="it is not set", fix="Give the contract's address.")
    return Contract(value.lower())
