"""The PoCo events Sluice follows, decoded, and where on the chain each one stood.

Source: IexecPoco1/2 facets of @iexec/poco 6.1.0; topics in `chain.contracts.decode`.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.types import BlockHash, BlockNumber, Contract, DealId, Hash32, TaskId, Timestamp, TxHash, Wallet


@dataclass(frozen=True, slots=True)
class SchedulerNotice:
    """A deal was matched on `workerpool`."""

    workerpool: Contract
    deal_id: DealId


@dataclass(frozen=True, slots=True)
class TaskInitialize:
    """The task exists on chain and takes contributions."""

    task_id: TaskId
    workerpool: Contract


@dataclass(frozen=True, slots=True)
class TaskContribute:
    """`worker` voted for `result_hash` = keccak(taskId ‖ digest)."""

    task_id: TaskId
    worker: Wallet
    result_hash: Hash32


@dataclass(frozen=True, slots=True)
class TaskConsensus:
    """The votes suffice; the winners must reveal."""

    task_id: TaskId
    consensus: Hash32


@dataclass(frozen=True, slots=True)
class TaskReveal:
    """`worker` revealed the digest behind its vote."""

    task_id: TaskId
    worker: Wallet
    digest: Hash32


@dataclass(frozen=True, slots=True)
class TaskReopen:
    """No winner revealed in time; the winners are rejected and voting starts again."""

    task_id: TaskId


@dataclass(frozen=True, slots=True)
class TaskFinalize:
    """The task is COMPLETED; `results` are the bytes given to finalize, as `0x` hex."""

    task_id: TaskId
    results: str


@dataclass(frozen=True, slots=True)
class TaskClaimed:
    """The task FAILED on chain and its stakes were given back or seized."""

    task_id: TaskId


@dataclass(frozen=True, slots=True)
class AccurateContribution:
    """`worker` was right and was paid."""

    worker: Wallet
    task_id: TaskId


@dataclass(frozen=True, slots=True)
class FaultyContribution:
    """`worker` was wrong and lost its stake."""

    worker: Wallet
    task_id: TaskId


TaskEvent = (
    TaskInitialize
    | TaskContribute
    | TaskConsensus
    | TaskReveal
    | TaskReopen
    | TaskFinalize
    | TaskClaimed
    | AccurateContribution
    | FaultyContribution
)
Event = SchedulerNotice | TaskEvent


@dataclass(frozen=True, slots=True)
class BlockRef:
    """One block as the watcher knows it."""

    number: BlockNumber
    hash: BlockHash
    parent_hash: BlockHash
    timestamp: Timestamp


@dataclass(frozen=True, slots=True)
class Seen:
    """An event at its place on the chain. Order of a task's life: (block_number, log_index)."""

    event: Event
    block_number: BlockNumber
    block_hash: BlockHash
    #: Time of the block, Unix seconds.
    timestamp: Timestamp
    tx_hash: TxHash
    log_index: int

    @property
    def place(self) -> tuple[BlockHash, int]:
        """The log's unique place on all branches of the chain: its block's hash and its index in that block."""
        return self.block_hash, self.log_index
