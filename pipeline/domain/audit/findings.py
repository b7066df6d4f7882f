"""What an audit finds, and what `--fix` can do about it. Values; `pipeline.flow.audit.run` carries repairs out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from protocol.types import BlockNumber, DealId, TaskId, Wallet


@dataclass(frozen=True, slots=True)
class ReadEvents:
    """Read the blocks from `first` on again, and make the stored events equal to the chain's."""

    first: BlockNumber


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Have the next sweep decide about the task anew, ended or not."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class ReadDeal:
    """Read the deal from the chain again and store what is missing of it."""

    deal: DealId


@dataclass(frozen=True, slots=True)
class FreeSlot:
    """Give back a slot or a promised stake that no replicate holds."""

    wallet: Wallet
    task: TaskId


@dataclass(frozen=True, slots=True)
class SignInAgain:
    """Refuse the machine's token, at which it signs in anew and gets a user and queues."""

    wallet: Wallet


@dataclass(frozen=True, slots=True)
class RemoveUser:
    """Remove a machine's user and queues at RabbitMQ."""

    wallet: Wallet


@dataclass(frozen=True, slots=True)
class KeepResult:
    """Have the result pinned, as far as the IPFS node still has it. `stored_at`: Unix seconds."""

    task: TaskId
    cid: str
    stored_at: float


Repair = ReadEvents | LookAgain | ReadDeal | FreeSlot | SignInAgain | RemoveUser | KeepResult


@dataclass(frozen=True, slots=True)
class Difference:
    """One contradiction between two parts of the pool. Two are equal if they report the same about the same thing."""

    #: Stable name, such as `task_events` or `machine_without_queues`.
    kind: str
    #: Id of the task, deal, wallet or content that it is about.
    subject: str
    says: str
    #: What to do, in words.
    fix: str = field(compare=False)
    #: What `--fix` does about it; None: only a person can.
    repair: Repair | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Unasked:
    """Something that could not be compared, and why."""

    what: str
    why: str


def lasting(first: Collection[Difference], second: Collection[Difference]) -> list[Difference]:
    """The second reading's differences that the first one found too: those of work in progress have changed."""
    before = set(first)
    return [difference for difference in second if difference in before]
