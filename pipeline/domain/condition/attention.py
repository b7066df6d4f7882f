"""What needs the operator beside the parts that are not well: for `sluice status`. Pure.

None of it keeps the pool from its work, so `/health` stays well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config import topology
from pipeline.domain.condition import certificates
from pipeline.domain.condition.facts import BrokerFacts, Facts, NodeFacts
from pipeline.domain.explain import Candidates, Kind, why_nobody
from pipeline.domain.match import Obstacle
from pipeline.domain.records import TaskRecord
from protocol.amounts import rlc
from protocol.counts import count
from protocol.types import TaskId

#: Share of the scheduler's stake that must be free: as the alert SluiceStakeLow has it.
LEAST_FREE = 0.1
#: Obstacles that do not pass by themselves with the machines that there are.
_LASTING = frozenset({Obstacle.ENCLAVE, Obstacle.TAG, Obstacle.STAKE})


@dataclass(frozen=True, slots=True)
class Need:
    """Something that the operator should see to, and what to do about it."""

    part: str
    says: str
    fix: str


@dataclass(frozen=True, slots=True)
class Unservable:
    """Waiting tasks that no machine of the pool can take. `first`: one of them; `why`: a sentence."""

    tasks: int
    first: TaskId
    why: str


def unservable(waiting: Sequence[TaskRecord], candidates: Mapping[Kind, Candidates], now: float) -> list[Unservable]:
    """The kinds of these tasks that no machine can take, for lack of a tag, of stake, or of standing."""
    found = []
    for kind, of_kind in candidates.items():
        tasks = [task for task in waiting if Kind.of(task) == kind]
        nearest = of_kind.nearest(tasks[0])
        if nearest is not None and nearest[0] in _LASTING:
            found.append(Unservable(len(tasks), tasks[0].task_id, why_nobody(tasks[0], of_kind, now)))
    return found


def needs(facts: Facts | None, quarantined: int, unservable: Sequence[Unservable], *, paid: bool) -> list[Need]:
    """What to see to. `quarantined`: rows; `paid`: whether the pool's newest deal locks a stake."""
    found = [] if facts is None else [*_stake(facts, paid=paid), *_dead(facts), *_certificates(facts)]
    if quarantined:
        says = f"{count(quarantined, 'row')} of the database quarantined: this release cannot use them"
        fix = "See `sluice quarantine ls`. A deal that cannot be decoded is the requester's mistake."
        found.append(Need("quarantine", says, fix))
    for each in unservable:
        tasks = count(each.tasks, "task")
        fix = f"See `sluice explain {each.first}`; a machine that can is needed before its time is over."
        found.append(Need("tasks", f"{tasks} that no machine of the pool can take: {each.why.rstrip('.')}", fix))
    return found


def _stake(facts: Facts, *, paid: bool) -> list[Need]:
    """The need for more stake, if the scheduler's free stake is running out; else nothing. `paid`: deals lock stake
    here.
    """
    node = facts.node
    if not isinstance(node, NodeFacts) or node.stake is None or node.locked is None:
        return []
    if node.stake >= LEAST_FREE * (node.stake + node.locked) and (node.stake or not paid):
        return []
    says = (
        f"the scheduler has {rlc(node.stake)} RLC of free stake and {rlc(node.locked)} RLC locked: deals that need "
        "more cannot be matched"
    )
    return [Need("stake", says, "See `sluice stake show`; `sluice stake deposit 'N RLC'` adds to it.")]


def _certificates(facts: Facts) -> list[Need]:
    """A need for each certificate that ends soon."""
    near = certificates.near_end(facts.certificates, facts.now)
    return [Need("certificates", says, certificates.RENEW) for says in near]


def _dead(facts: Facts) -> list[Need]:
    """The need to look at dead letters, if there are any."""
    queues = facts.broker.queues if isinstance(facts.broker, BrokerFacts) else ()
    dead = sum(queue.ready + queue.unacknowledged for queue in queues if queue.name == topology.DEAD_QUEUE)
    if not dead:
        return []
    fix = "See `sluice dead ls`; `sluice dead retry --all` has them delivered again, `drop` removes them."
    return [Need("dead letters", f"{count(dead, 'message')} failed too often", fix)]
