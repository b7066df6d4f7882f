"""What is known of the pool's servers, its wallet and its machines at a moment: the facts from which
`pipeline.domain.condition.health` decides, and which the metrics show. Pure values; `pipeline.probes` asks for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.poco.events import BlockRef
from protocol.types import BlockNumber, Contract, NRlc, Timestamp, Wallet, Wei


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A server that could not be asked, or that refused to answer, and what to do about it."""

    why: str
    fix: str
    #: Whether it may answer again without the operator: it is away or slow, and has not refused.
    may_recover: bool = False
    #: Whether it may still do its work: only the port that it is monitored by does not answer.
    serves: bool = False


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """What the last audit found (`sluice audit`). `at`: Unix seconds; `first`: the first of its differences."""

    at: float
    differences: int = 0
    first: str = ""
    #: What could not be asked, each with its reason.
    unasked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """MongoDB."""

    #: Whether it is a replica set, or a sharded cluster of them.
    replicated: bool
    #: Seconds that its clock is ahead of ours.
    clock_ahead: float
    #: The last block that the watcher has stored.
    cursor: BlockRef | None
    #: When the pipeline last swept all tasks, Unix seconds; None: never.
    swept_at: float | None = None
    #: The process that did, for people; None: not known.
    swept_by: str | None = None
    #: None: none has ended yet.
    audit: AuditFacts | None = None


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """Messages of one queue of the scheduler's, or of those of all machines together."""

    name: str
    ready: int
    unacknowledged: int
    #: Seconds since it was last seen without messages that wait.
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """RabbitMQ, by its management API."""

    user: str
    administrator: bool
    alarms: tuple[str, ...] = ()
    #: The scheduler's queues that no process reads.
    unread: tuple[str, ...] = ()
    #: Seconds that its clock is ahead of ours; None: it does not say.
    clock_ahead: float | None = None
    #: Whether it tells of consumers that come and go (`pipeline.broker.presence`).
    tells_of_cuts: bool = True
    #: Empty: not asked.
    queues: tuple[QueueFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class IpfsFacts:
    """The IPFS node."""

    version: str


@dataclass(frozen=True, slots=True)
class ResultFacts:
    """Results that machines brought, and that IPFS or the API's disk did not take; of one API process."""

    #: Seconds since the last one that could not be stored.
    refused_since: float
    why: str


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The chain's head, and the scheduler's wallet there."""

    head: BlockNumber
    timestamp: Timestamp
    balance: Wei
    #: What the lane would offer per gas now, in wei.
    max_fee: Wei
    #: Owner of the workerpool.
    owner: Wallet
    #: RLC of the wallet in the hub, free and locked; None: not asked.
    stake: NRlc | None = None
    locked: NRlc | None = None


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """The scheduler's wallet's transactions."""

    #: Why it is halted until an operator decides; None if it is not.
    halted: str | None = None
    #: Age of the oldest transaction that is not mined, in seconds; None if there is none.
    waiting: float | None = None
    #: What it waits for.
    why: str = ""
    #: What its last run found that no later run can repair by itself; None if nothing.
    stuck: str | None = None
    #: The process that ran it last, for people; None: not known.
    run_by: str | None = None


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """Worker machines; counted up to a limit. `able`: heard of lately, with gas, neither banned nor cooling down."""

    able: int
    enrolled: int = 0
    silent: int = 0
    unfunded: int = 0
    cooling: int = 0
    banned: int = 0
    drained: int = 0


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """A certificate that machines and requesters are shown. `place`: host and port; times in Unix seconds."""

    place: str
    begins_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class ExpectedPool:
    """What the pool is meant to be."""

    wallet: Wallet
    workerpool: Contract
    block_time: float
    start_block: int = 0
    spend_depth: int = 0
    keep_balance: int = 0
    #: Seconds between two sweeps (SLUICE_SWEEP_SECONDS).
    sweep_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known at `now` (Unix seconds of this machine); None: not asked."""

    now: float
    database: DatabaseFacts | NoAnswer | None = None
    broker: BrokerFacts | NoAnswer | None = None
    ipfs: IpfsFacts | NoAnswer | None = None
    node: NodeFacts | NoAnswer | None = None
    lane: LaneFacts | None = None
    machines: MachineFacts | None = None
    #: None: the last result that came was stored, or none came.
    results: ResultFacts | None = None
    #: Those that could be seen from here.
    certificates: tuple[CertificateFacts, ...] = ()
    #: Seconds for which this process has been looking.
    watched: float = 0.0
    #: Seconds since the head was last seen to move, and chain seconds per second of ours when it did; None: not seen.
    head_still: float | None = None
    head_pace: float | None = None
