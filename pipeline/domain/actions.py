"""What `decide` may ask for. Each is a value; `advance` carries it out, `progress` says what the record becomes.

to the lane      Submit
to a worker      Resend, AskReveal, AskUpload, Stop
to the secrets   AskChallenge
to the store     Postpone, Want, AddVoter, Drop, Free, Pledge, Count, Resume, End, Explain
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pipeline.domain.records import MOST_NEWCOMERS, Outcome, ReplicateState, TaskStage
from protocol.types import Wallet


class Method(StrEnum):
    """Transactions that the scheduler sends for a task, as the lane names them."""

    INITIALIZE = "initialize"
    FINALIZE = "finalize"
    REOPEN = "reopen"
    CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Submit:
    """Submit a transaction to the lane. Same method and generation again: the lane keeps the first."""

    method: Method
    generation: int
    #: JSON arguments of the call, in the lane's names.
    args: Mapping[str, str | int]
    #: Submitted before without visible effect: check its state in the lane.
    again: bool = False


@dataclass(frozen=True, slots=True)
class Want:
    """Have so many replicates assigned, from now; fewer if heavier votes reach consensus on top of these weights.

    `backup`: only by workers that were right on chain, once they have nothing else to do. `newcomers`: so many of them
    may be workers that never were.
    """

    count: int
    leading: int = 0
    others: int = 0
    backup: bool = False
    newcomers: int = MOST_NEWCOMERS


@dataclass(frozen=True, slots=True)
class Resend:
    """Publish the compute segment again to a worker that has not reported STARTED."""

    wallet: Wallet


@dataclass(frozen=True, slots=True)
class AskReveal:
    """Have a winner reveal, and meanwhile upload its result if it is the uploader."""

    wallet: Wallet
    upload: bool


@dataclass(frozen=True, slots=True)
class AskUpload:
    """Have a winner upload its result."""

    wallet: Wallet


@dataclass(frozen=True, slots=True)
class AskChallenge:
    """Ask the secret service for the task's challenge, without which no machine is given a task for enclaves; or again,
    where a machine found that it does not have it.
    """


@dataclass(frozen=True, slots=True)
class Postpone:
    """Do not initialize the task before a machine can serve its tag; `pipeline.flow.unserved` searches for one."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Have a worker stop a replicate that is not needed any more."""

    wallet: Wallet


@dataclass(frozen=True, slots=True)
class AddVoter:
    """Add the replicate of a worker that voted on chain but is missing in the record; it is then treated like any
    other.
    """

    wallet: Wallet


@dataclass(frozen=True, slots=True)
class Drop:
    """Set the replicate to a state that ends it."""

    wallet: Wallet
    state: ReplicateState
    why: str


@dataclass(frozen=True, slots=True)
class Free:
    """Give the replicate's slot, and the stake promised to it, back to its worker."""

    wallet: Wallet
    #: What the end of the replicate says about the worker.
    outcome: Outcome = Outcome.NEUTRAL


@dataclass(frozen=True, slots=True)
class Pledge:
    """Give the slot back to its worker but count its stake as spent until the vote is seen."""

    wallet: Wallet


@dataclass(frozen=True, slots=True)
class Count:
    """Count this outcome for or against the worker, once. Its slot and stake are not touched."""

    wallet: Wallet
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Explain:
    """Store what the task waits for."""

    why: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Open an ended task again, because a reorg removed the event that ended it."""


@dataclass(frozen=True, slots=True)
class End:
    """Set the task to its last stage."""

    stage: TaskStage
    why: str | None


#: Actions that change one replicate in the task's record.
OfReplicate = Resend | AskReveal | AskUpload | Drop | Free | Pledge | Count
Action = Submit | Postpone | Want | AddVoter | AskChallenge | Stop | Explain | Resume | End | OfReplicate
