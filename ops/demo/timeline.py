"""When each step of a task reached the chain, in blocks from its match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.poco import events
from protocol.poco.events import Seen
from protocol.types import BlockNumber, TaskId, Wallet


@dataclass(frozen=True, slots=True)
class Timeline:
    """Blocks of one task's steps; several workers contribute and reveal, so those are lists."""

    task_id: TaskId
    matched: BlockNumber
    initialized: BlockNumber | None = None
    contributed: tuple[BlockNumber, ...] = ()
    consensus: BlockNumber | None = None
    revealed: tuple[BlockNumber, ...] = ()
    finalized: BlockNumber | None = None
    #: In the order of their votes.
    workers: tuple[Wallet, ...] = ()
    #: Workers that the chain found wrong.
    faulty: tuple[Wallet, ...] = ()

    @property
    def blocks(self) -> int | None:
        """Number of blocks from match to finalize; None while the task runs."""
        return None if self.finalized is None else self.finalized - self.matched

    def text(self) -> str:
        """One line, each step with its distance from the match."""
        steps = [
            ("initialized", self.initialized),
            ("contributed", self.contributed),
            ("consensus", self.consensus),
            ("revealed", self.revealed),
            ("finalized", self.finalized),
        ]
        return " → ".join(["matched " + str(self.matched), *(f"{name} {self._distance(at)}" for name, at in steps)])

    def _distance(self, at: BlockNumber | Sequence[BlockNumber] | None) -> str:
        """A step's distance from the match in blocks, as text; several for a step of several workers."""
        match at:
            case None | ():
                return "–"
            case int():
                return f"+{at - self.matched}"
            case _:
                return "/".join(f"+{block - self.matched}" for block in at)


def timeline(task: TaskId, matched: BlockNumber, seen: Sequence[Seen]) -> Timeline:
    """The time line of one task, from its events in chain order."""
    ordered = sorted(seen, key=lambda item: (item.block_number, item.log_index))

    def first(kind: type[object]) -> BlockNumber | None:
        """The block of the task's first event of this kind; None without one."""
        return next((item.block_number for item in ordered if isinstance(item.event, kind)), None)

    votes = [
        (item.block_number, item.event.worker) for item in ordered if isinstance(item.event, events.TaskContribute)
    ]
    return Timeline(
        task_id=task,
        matched=matched,
        initialized=first(events.TaskInitialize),
        contributed=tuple(block for block, _ in votes),
        consensus=first(events.TaskConsensus),
        revealed=tuple(item.block_number for item in ordered if isinstance(item.event, events.TaskReveal)),
        finalized=first(events.TaskFinalize),
        workers=tuple(worker for _, worker in votes),
        faulty=tuple(item.event.worker for item in ordered if isinstance(item.event, events.FaultyContribution)),
    )
