"""One task as this machine knows it, and which step may follow which. Pure.

    TAKEN ──► RUNNING ──► COMPUTED ──► COMMITTED ──► REVEALED
      ├──────────┼────────────┼───────────────┐ (the lane gave the vote up)
      ▼          ▼            ▼               ▼
      ABORTED (the scheduler stopped it), FAILED (nothing was contributed, nothing will be)

ABORTED becomes COMMITTED if the vote was with the lane already, and so does FAILED if a reorg has a block take the vote
that the lane gave up. From COMMITTED on the result is kept until the task is over: a vote that is not revealed costs
the stake.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from protocol.poco.tags import needs_enclave_signature
from protocol.results.attestation import Attestation
from protocol.types import Hash32, Signature, TaskId
from protocol.wire import Assignment, Mode, ResultLink


class ReplicateStage(StrEnum):
    """How far this machine is with a task."""

    TAKEN = "taken"  #: the assignment is stored, no container yet
    RUNNING = "running"  #: a container of this task may exist
    COMPUTED = "computed"  #: digest known, result zip on disk
    COMMITTED = "committed"  #: contribute (or contributeAndFinalize) is in the lane
    REVEALED = "revealed"  #: reveal is in the lane
    FAILED = "failed"  #: nothing was contributed and nothing will be
    ABORTED = "aborted"  #: the scheduler stopped it


#: For each step, the steps it may follow. A step may follow itself where a repeated message would otherwise be lost.
ALLOWED_BEFORE: dict[ReplicateStage, frozenset[ReplicateStage]] = {
    ReplicateStage.TAKEN: frozenset(),
    ReplicateStage.RUNNING: frozenset({ReplicateStage.TAKEN, ReplicateStage.RUNNING}),
    ReplicateStage.COMPUTED: frozenset({ReplicateStage.RUNNING, ReplicateStage.TAKEN}),
    # An abort may come while the vote is handed to the lane, which sends it all the same; and a vote that reverted may
    # be in a block after all.
    ReplicateStage.COMMITTED: frozenset({ReplicateStage.COMPUTED, ReplicateStage.ABORTED, ReplicateStage.FAILED}),
    ReplicateStage.REVEALED: frozenset({ReplicateStage.COMMITTED}),
    ReplicateStage.FAILED: frozenset(
        {ReplicateStage.TAKEN, ReplicateStage.RUNNING, ReplicateStage.COMPUTED, ReplicateStage.COMMITTED}
    ),
    ReplicateStage.ABORTED: frozenset({ReplicateStage.TAKEN, ReplicateStage.RUNNING, ReplicateStage.COMPUTED}),
}

#: Steps in which a container may still have to be run or awaited.
COMPUTING = frozenset({ReplicateStage.TAKEN, ReplicateStage.RUNNING})
#: Steps in which the result must be on disk.
WITH_RESULT = frozenset({ReplicateStage.COMPUTED, ReplicateStage.COMMITTED, ReplicateStage.REVEALED})


@dataclass(frozen=True, slots=True)
class Replicate:
    """One row of the journal."""

    task_id: TaskId
    assignment: Assignment
    stage: ReplicateStage
    #: Result digest (not the vote's hash), from COMPUTED on.
    digest: Hash32 | None = None
    #: By the task's enclave, of hash and seal of the digest.
    enclave_signature: Signature | None = None
    #: `callback-data` of the app as `0x` hex, for deals with a callback.
    callback_data: str | None = None
    #: Where the scheduler stored the result, once uploaded.
    link: ResultLink | None = None
    #: PoCo cause, for FAILED and for error results.
    cause: str | None = None
    exit_code: int | None = None
    container_id: str | None = None
    #: Unix seconds of the last change.
    updated_at: float = 0.0

    @property
    def solo(self) -> bool:
        """Whether the result goes on chain in one transaction (contributeAndFinalize)."""
        return self.assignment.mode is Mode.SOLO

    @property
    def in_enclave(self) -> bool:
        """Whether its app runs in an enclave, which signs the result."""
        return needs_enclave_signature(Hash32(self.assignment.tag))

    @property
    def attestation(self) -> Attestation | None:
        """The enclave's signed statement about the result; None without an enclave."""
        if self.digest is None or self.enclave_signature is None:
            return None
        return Attestation(self.digest, self.enclave_signature)

    @property
    def uploaded(self) -> bool:
        """Whether the scheduler has the result."""
        return self.link is not None


def begins_anew(known: Replicate, assignment: Assignment) -> bool:
    """Whether an assignment starts the task again on this machine: it was aborted here, or failed with a challenge that
    the pool's secret service has lost and replaced since.
    """
    other = assignment.enclave_challenge != known.assignment.enclave_challenge
    return known.stage is ReplicateStage.ABORTED or (known.stage is ReplicateStage.FAILED and other)


class Todo(StrEnum):
    """The next step of a replicate, published again if its message was lost."""

    COMPUTE = "compute"
    UPLOAD = "upload"
    CONTRIBUTE = "contribute"
    CONTRIBUTE_AND_FINALIZE = "contribute_and_finalize"


def todo(replicate: Replicate) -> Todo | None:
    """The next step that waits for no one else; None when the chain or the scheduler comes next. Never a reveal: it
    follows consensus, which only the chain shows.
    """
    if replicate.stage in COMPUTING:
        return Todo.COMPUTE
    if replicate.stage is not ReplicateStage.COMPUTED:
        return None
    if not replicate.solo:
        return Todo.CONTRIBUTE
    return Todo.CONTRIBUTE_AND_FINALIZE if replicate.uploaded else Todo.UPLOAD
