"""Reveals votes that the pool did not ask to reveal: judged by the chain alone, apart from all that asks the pool.

A pool or broker that answers slowly or never, meant or not, holds up the thread `upkeep`. It must not hold up a reveal:
an unrevealed vote loses this machine's stake.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from chain.contracts.hub import Hub
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.types import Contract, TaskId
from workers.attempt import Attempts
from workers.context import WorkerContext
from workers.moments import is_older
from workers.task import steps
from workers.task.replicate import Replicate, ReplicateStage
from workers.task.votes_in_lane import note_votes

log = structlog.get_logger(__name__)

#: Seconds after a vote until the chain is asked whether to reveal it; the pool asks for the reveal much sooner.
REVEAL_CHECK_SECONDS = 30.0
#: Seconds between two reads of the journal, however fast blocks come.
LOOK_SECONDS = 5.0


class UnaskedReveals:
    """Reveals one machine's winning votes that were not revealed by message. For one thread, at each head."""

    def __init__(self, context: WorkerContext, steady: Callable[[], float] = time.monotonic) -> None:
        """`steady`: seconds of a clock that is never set."""
        self._context, self._steady = context, steady
        self._hub = Hub(context.rpc, Contract(context.machine.pool.hub))
        self._asked: dict[TaskId, float] = {}
        self._attempts = Attempts(steady)
        self._look_at = -math.inf

    def run_if_due(self) -> None:
        """Ask the chain about votes that are REVEAL_CHECK_SECONDS old, and reveal those that have won."""
        now, wall = self._steady(), self._context.now()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        at_stake = self._at_stake()
        self._asked = {item.task_id: self._asked.get(item.task_id, -math.inf) for item in at_stake}
        due = [
            item.task_id
            for item in at_stake
            if is_older(item.updated_at, REVEAL_CHECK_SECONDS, wall)
            and now >= self._asked[item.task_id] + REVEAL_CHECK_SECONDS
        ]
        wallet = self._context.machine.wallet
        for task_id, view in read_views(self._hub, due).items():
            self._asked[task_id] = now
            vote = view.contribution(wallet)
            if view.status is TaskStatus.REVEALING and vote in view.winners:
                assert vote is not None
                if vote.status is ContributionStatus.CONTRIBUTED:
                    log.warning(
                        "The pool has not asked for the reveal; revealing.", action="reveal_unasked", task=task_id
                    )
                    self._attempts.run(f"reveal {task_id}", partial(steps.reveal, self._context, task_id))

    def _at_stake(self) -> list[Replicate]:
        """Replicates whose vote is or may be on chain, and whose reveal is not in the lane or was given up there."""
        context = self._context
        replicates = context.journal.all_replicates()
        if noted := note_votes(context.journal, context.lane_store, context.chain_id, replicates):
            log.warning("The lane had votes that the journal lacked.", action="votes_noted", tasks=noted)
            replicates = context.journal.all_replicates()
        revealed = [item for item in replicates if item.stage is ReplicateStage.REVEALED and not item.solo]
        failed = steps.failed_reveals(context, revealed)
        return [
            item for item in replicates if is_at_stake(item) or 0 < failed.get(item.task_id, 0) < steps.MOST_REVEALS
        ]


def is_at_stake(replicate: Replicate) -> bool:
    """Whether a vote is or may be on chain that was not revealed."""
    return replicate.stage is ReplicateStage.COMMITTED and not replicate.solo


def read_views(hub: Hub, task_ids: Sequence[TaskId]) -> dict[TaskId, ChainView]:
    """The contract's views of these tasks; empty while the node does not answer."""
    if not task_ids:
        return {}
    try:
        return {view.task_id: view for view in hub.tasks(task_ids)}
    except (RpcUnavailable, RpcError) as error:
        log.warning("Cannot ask the chain.", action="views_unknown", why=str(error))
        return {}
