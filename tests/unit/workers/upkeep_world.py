"""A machine by itself, for tests of its upkeep: the pool, Docker and the chain are played here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from chain.lane.model.intent import Intent, IntentState
from protocol.errors import PoolUnavailable, RpcUnavailable
from protocol.poco.view import ChainView, Contribution, ContributionStatus, TaskStatus
from protocol.types import BlockNumber, Hash32, TaskId, Timestamp
from protocol.wire import Mode, Pong, ResultLink
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from workers.care.reveals import UnaskedReveals
from workers.care.upkeep import Upkeep
from workers.data.layout import Layout
from workers.task import votes
from workers.task.journal import Journal
from workers.task.replicate import Replicate, ReplicateStage, todo

DIGEST = Hash32("0x" + "ab" * 32)
VOTE = Hash32("0x" + "cd" * 32)
LINK = ResultLink(storage="ipfs", location="/ipfs/Qm")


@dataclass
class World:
    """Everything that `Upkeep` calls, and what it did."""

    layout: Layout
    journal: Journal
    clock: float = 1000.0
    #: Seconds by which the machine's clock was set back since it was started.
    set_back: float = 0.0
    pong: Pong | None = field(default_factory=lambda: Pong(forget=[], abort=[]))
    views: dict[TaskId, ChainView] | None = field(default_factory=dict)
    containers: list[tuple[TaskId, str]] = field(default_factory=list)
    pinged: list[list[TaskId]] = field(default_factory=list)
    sent: list[tuple[str, TaskId]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    #: Why no task is taken, by the machine's own limits; and how often it signed off.
    limit: str | None = None
    left: list[str] = field(default_factory=list)
    #: Whether all threads that go on with lost tasks are at work.
    busy: bool = False
    #: Whether the machine may not start, and only reveals its votes; how many transactions of its lane are not mined.
    votes_only: bool = False
    unmined: int = 0
    #: What Docker says when one of these is to be removed.
    stuck: dict[str, Exception] = field(default_factory=dict)
    #: Times that the lane has given each reveal up.
    given_up: int = 0
    #: Tasks whose vote the lane has, and how often it was asked for any.
    voted: list[TaskId] = field(default_factory=list)
    lane_asked: int = 0

    def now(self) -> float:
        return self.clock - self.set_back

    @property
    def hub(self) -> Any:
        """The chain, played."""
        return SimpleNamespace(tasks=self._tasks)

    @property
    def context(self) -> Any:
        machine = SimpleNamespace(
            wallet=WORKER_KEY.wallet,
            pool=SimpleNamespace(hub="0x" + "0" * 40, least_stake=None),
            settings=SimpleNamespace(worker_name="test"),
        )
        return SimpleNamespace(
            layout=self.layout,
            journal=self.journal,
            now=self.now,
            rpc=None,
            machine=machine,
            pool=SimpleNamespace(ping=self._ping, leave=self.left.append),
            ledger=SimpleNamespace(note_stakes=lambda: None, worth=lambda _: 0, why_no_work=lambda _: self.limit),
            chain_id=1,
            lane=SimpleNamespace(submit=self._submit, intents=self._given_up, id="lane"),
            lane_store=SimpleNamespace(count=lambda *_: self.unmined, intents=self._sent_by_lane),
            lane_wakeup=SimpleNamespace(notify=lambda: None),
            reports=SimpleNamespace(send=lambda *_: None),
            engine=SimpleNamespace(
                containers_of=lambda _: self.containers, remove=self._remove, kill=self.killed.append
            ),
        )

    @property
    def upkeep(self) -> Upkeep:
        resumer: Any = SimpleNamespace(resume=self._resume)
        upkeep = Upkeep(self.context, resumer, votes_only=self.votes_only, steady=lambda: self.clock)
        upkeep._hub = self.hub
        return upkeep

    @property
    def reveals(self) -> UnaskedReveals:
        reveals = UnaskedReveals(self.context, steady=lambda: self.clock)
        reveals._hub = self.hub
        return reveals

    def _resume(self, replicate: Replicate) -> bool:
        if self.busy:
            return False
        self.sent.append((todo(replicate) or "nothing", replicate.task_id))
        return True

    def _given_up(self, keys: Sequence[str]) -> list[Any]:
        self.lane_asked += 1
        tries = [
            votes.reveal(item, 1, 0.0, occasion=number).key
            for item in self.journal.all_replicates()
            if item.digest is not None
            for number in range(self.given_up)
        ]
        return [SimpleNamespace(key=key, state=IntentState.FAILED) for key in keys if key in tries]

    def _sent_by_lane(self, keys: Sequence[str]) -> list[Intent]:
        self.lane_asked += 1
        found = [votes.contribute(item, 1, item.updated_at) for item in self.journal.all_replicates() if item.digest]
        return [vote for vote in found if vote.key in keys and vote.subject in self.voted]

    def _submit(self, intents: Sequence[Intent]) -> None:
        self.sent += [(intent.method, TaskId(intent.subject)) for intent in intents]

    def _remove(self, container: str) -> None:
        if container in self.stuck:
            raise self.stuck[container]
        self.removed.append(container)

    def _ping(self, tasks: list[TaskId], machine: str) -> Pong:
        self.pinged.append(tasks)
        if self.pong is None:
            raise PoolUnavailable(what="pool", why="away")
        return self.pong

    def _tasks(self, tasks: Sequence[TaskId]) -> list[ChainView]:
        if self.views is None:
            raise RpcUnavailable(what="node", why="away")
        return [self.views.get(task, ChainView(task)) for task in tasks]

    def put(self, stage: ReplicateStage, mode: Mode = Mode.VOTE, number: int = 1) -> TaskId:
        task = task_id(number)
        self.journal.add(assignment(number, mode=mode), self.clock)
        self.layout.task(task).make()
        if stage is not ReplicateStage.TAKEN:
            self.journal.mark_running(task, "container", self.clock)
        if stage in (ReplicateStage.COMPUTED, ReplicateStage.COMMITTED, ReplicateStage.REVEALED):
            self.journal.mark_computed(task, self.clock, digest=DIGEST, callback_data=None, cause=None, exit_code=0)
        if stage in (ReplicateStage.COMMITTED, ReplicateStage.REVEALED):
            self.journal.mark_committed(task, self.clock)
        if stage is ReplicateStage.REVEALED:
            self.journal.mark_revealed(task, self.clock)
        if stage is ReplicateStage.FAILED:
            self.journal.mark_failed(task, "cause", self.clock)
        if stage is ReplicateStage.ABORTED:
            self.journal.mark_aborted(task, self.clock)
        return task


def view(task: TaskId, status: TaskStatus, vote: ContributionStatus = ContributionStatus.CONTRIBUTED) -> ChainView:
    own = Contribution(WORKER_KEY.wallet, VOTE, vote, BlockNumber(1))
    return ChainView(task, status, (own,), VOTE, Timestamp(9999))
