"""Which fault strikes what and when: a pure function of seed, number of tasks and pace.

Kinds are drawn like cards from a deck that holds each kind once, and each kind has a deck of its targets. So no kind
comes a second time before every kind has come once, and the same holds for the targets of a kind.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

#: Machines of the pool, and what they are called.
MACHINES = 4
MACHINE_NAMES = tuple(f"worker-{number}" for number in range(1, MACHINES + 1))
SCHEDULER = "scheduler"
CHAIN = "chain"
SERVERS = ("mongodb", "rabbitmq", "ipfs")
#: The processes of the scheduler and of a machine that work on tasks.
SCHEDULER_PROCESSES = ("pipeline", "lane", "watch", "beat", "api")
MACHINE_PROCESSES = ("compute", "tx", "upkeep")
#: Seconds that a stop, a partition or a lagging node lasts.
SHORTEST, LONGEST = 2, 8
#: Blocks that a reorg replaces, and that a node is behind, at most.
DEEPEST = 5
#: Seconds of faults for each task: five times what an undisturbed pool of MACHINES takes for it.
SECONDS_PER_TASK = 10

Card = TypeVar("Card")


class Kind(StrEnum):
    """What is done to the target."""

    KILL_PROCESS = "kill_process"  #: SIGKILL to one process of scheduler or machine; its supervisor starts it again
    STOP_PROCESS = "stop_process"  #: SIGSTOP to one process, SIGCONT later
    KILL_PROGRAM = "kill_program"  #: SIGKILL to the whole scheduler or machine, which is started again
    STOP_PROGRAM = "stop_program"  #: SIGSTOP to all processes of scheduler or machine, SIGCONT later
    RESTART_PROGRAM = "restart_program"  #: SIGTERM to scheduler or machine, which is started again
    KILL_SERVER = "kill_server"  #: SIGKILL to a server, which is started again
    STOP_SERVER = "stop_server"  #: SIGSTOP to a server or the chain's node, SIGCONT later
    PARTITION_MACHINE = "partition_machine"  #: nothing passes between a machine and all servers and the API
    PARTITION_SCHEDULER = "partition_scheduler"  #: nothing passes between the scheduler and one server or the node
    LAG_NODE = "lag_node"  #: the node answers as it was some blocks ago
    REORG = "reorg"  #: the newest blocks are replaced


_PROGRAMS = (SCHEDULER, *MACHINE_NAMES)
_PROCESSES = (
    *(f"{SCHEDULER}/{name}" for name in SCHEDULER_PROCESSES),
    *(f"{machine}/{name}" for machine in MACHINE_NAMES for name in MACHINE_PROCESSES),
)
TARGETS: dict[Kind, tuple[str, ...]] = {
    Kind.KILL_PROCESS: _PROCESSES,
    Kind.STOP_PROCESS: _PROCESSES,
    Kind.KILL_PROGRAM: _PROGRAMS,
    Kind.STOP_PROGRAM: _PROGRAMS,
    Kind.RESTART_PROGRAM: _PROGRAMS,
    Kind.KILL_SERVER: SERVERS,
    Kind.STOP_SERVER: (*SERVERS, CHAIN),
    Kind.PARTITION_MACHINE: MACHINE_NAMES,
    Kind.PARTITION_SCHEDULER: (*SERVERS, CHAIN),
    Kind.LAG_NODE: (CHAIN,),
    Kind.REORG: (CHAIN,),
}
_LASTING = frozenset(
    {
        Kind.STOP_PROCESS,
        Kind.STOP_PROGRAM,
        Kind.STOP_SERVER,
        Kind.PARTITION_MACHINE,
        Kind.PARTITION_SCHEDULER,
        Kind.LAG_NODE,
    }
)


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault. `at`: seconds after the purchase; `lasts`: seconds; `blocks`: of a reorg, or that a node is behind."""

    at: float
    kind: Kind
    target: str
    lasts: int = 0
    blocks: int = 0
    #: Of a reorg: the new blocks hold the transactions of the old ones.
    returned: bool = False


def make_plan(seed: int, tasks: int, every: float) -> tuple[Strike, ...]:
    """The strikes of a run, one each `every` seconds; more than are needed until `tasks` tasks have ended."""
    # Of a text, which hashes the same in every process.
    draw = random.Random(f"{seed} {tasks} {every:g}")
    kinds = _deck(draw, tuple(Kind))
    targets = {kind: _deck(draw, names) for kind, names in TARGETS.items()}
    count = max(1, round(tasks * SECONDS_PER_TASK / every))
    return tuple(
        _draw_strike(draw, number * every, kind, next(targets[kind]))
        for number, kind in zip(range(1, count + 1), kinds, strict=False)
    )


def _draw_strike(draw: random.Random, at: float, kind: Kind, target: str) -> Strike:
    """A strike of that kind with random length and depth."""
    lasts = draw.randint(SHORTEST, LONGEST) if kind in _LASTING else 0
    blocks = draw.randint(1, DEEPEST) if kind in (Kind.LAG_NODE, Kind.REORG) else 0
    return Strike(at, kind, target, lasts, blocks, returned=kind is Kind.REORG and draw.random() < 0.5)


def _deck(draw: random.Random, cards: Sequence[Card]) -> Iterator[Card]:
    """All cards in a drawn order, then all of them in another, for ever."""
    while True:
        yield from draw.sample(cards, len(cards))
