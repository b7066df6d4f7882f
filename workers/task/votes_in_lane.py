"""Votes that the lane has and the journal does not know of: a process ended between `submit` and `mark_committed`, or
a reorg has put a vote into a block that had reverted and was given up.

Such a vote is or will be on chain, also if the task was aborted since: it must be revealed like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from chain.lane.model.intent import Intent, IntentState
from chain.lane.store.port import LaneStore
from protocol.types import TaskId
from workers.task import votes
from workers.task.journal import Journal
from workers.task.replicate import Replicate, ReplicateStage

#: Stages in which the lane may have a vote without the journal's knowledge.
_UNSURE = (ReplicateStage.COMPUTED, ReplicateStage.ABORTED, ReplicateStage.FAILED)


def note_votes(journal: Journal, store: LaneStore, chain_id: int, replicates: Sequence[Replicate]) -> list[TaskId]:
    """Record in the journal the votes on these replicates that the lane has sent or will send; returns the new ones.

    They are noted as of the vote's moment. `store`: of the lane of the machine's wallet on `chain_id`.
    """
    found = _votes(store, chain_id, [item for item in replicates if _may_have_voted(item)])
    return [TaskId(vote.subject) for vote in found if journal.mark_committed(TaskId(vote.subject), vote.created_at)]


def _may_have_voted(replicate: Replicate) -> bool:
    """Whether the lane may have a vote on this task that the journal does not know of."""
    return replicate.stage in _UNSURE and replicate.digest is not None and not replicate.solo


def _votes(store: LaneStore, chain_id: int, replicates: Sequence[Replicate]) -> list[Intent]:
    """The votes on these tasks that the lane has sent or will send."""
    if not replicates:
        return []
    keys = [votes.contribute(item, chain_id, item.updated_at).key for item in replicates]
    return [intent for intent in store.intents(keys) if intent.state is not IntentState.FAILED]
