"""What database, contracts, RabbitMQ and IPFS say of one page of the pool, all of it as of one block. Values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chain.contracts.views import Deal
from chain.lane.audit import LaneFinding
from chain.lane.model.intent import IntentState
from chain.watch.audit import Audit
from pipeline.domain.records import DealRecord, TaskRecord, WorkerRecord
from protocol.poco.view import ChainView
from protocol.types import BlockNumber, DealId, NRlc, TaskId, Wallet


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task's record, its state by the stored events up to the page's block, and the lane's state of what it handed
    over, by method (None: the lane does not have it).
    """

    record: TaskRecord
    view: ChainView
    handed_over: Mapping[str, IntentState | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DealRow:
    """A deal that was read from the chain, and how many of its tasks are stored."""

    record: DealRecord
    tasks: int


@dataclass(frozen=True, slots=True)
class WaitingDeal:
    """A deal that was noticed and is not ingested yet; `stored`: its tasks so far."""

    deal_id: DealId
    block: BlockNumber
    stored: int


@dataclass(frozen=True, slots=True)
class KeptResult:
    """A result that the database says is pinned."""

    task: TaskId
    cid: str
    stored_at: float


@dataclass(frozen=True, slots=True)
class DatabaseView:
    """One page of the scheduler's database. Empty: not on this page."""

    block: BlockNumber
    now: float
    tasks: Sequence[StoredTask] = ()
    deals: Sequence[DealRow] = ()
    waiting: Sequence[WaitingDeal] = ()
    #: Machines of replicates on this page.
    machines: Mapping[Wallet, WorkerRecord] = field(default_factory=dict)
    #: Machines that hold slots or stakes, and the tasks that they hold them for, as far as these are stored.
    holding: Sequence[WorkerRecord] = ()
    held: Mapping[TaskId, TaskRecord] = field(default_factory=dict)
    #: Machines that have a user and queues at RabbitMQ, by their rows.
    with_queues: Mapping[Wallet, WorkerRecord] = field(default_factory=dict)
    results: Sequence[KeptResult] = ()
    #: The pool's wallet and the stake that its tasks on all pages explain (`stake_of`); None: not added up.
    stake: tuple[Wallet, NRlc] | None = None


@dataclass(frozen=True, slots=True)
class PoolOnChain:
    """Tasks and deals as the contracts have them, at one block. A deal that is None does not exist; one that is missing
    could not be read.
    """

    tasks: Mapping[TaskId, ChainView] = field(default_factory=dict)
    deals: Mapping[DealId, Deal | None] = field(default_factory=dict)
    #: What the hub locks of the pool's wallet.
    locked: NRlc | None = None
    events: Sequence[Audit] = ()
    lane: Sequence[LaneFinding] = ()


@dataclass(frozen=True, slots=True)
class BrokerView:
    """Machines' users at RabbitMQ, and queues of vhost `pool`."""

    users: frozenset[Wallet]
    queues: frozenset[str]


@dataclass(frozen=True, slots=True)
class StorageView:
    """Which of the page's results the IPFS node has pinned, of those that it was asked about."""

    pinned: Mapping[str, bool]
