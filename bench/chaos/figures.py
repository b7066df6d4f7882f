"""The figures of a run: counted on chain, at the container engine and in the database, as one line of JSON."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import docker

from bench.rig.bench_pool import BenchPool
from chain.rpc.answers import decode_replies, values
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus
from protocol.types import BlockNumber, TaskId, Wallet
from workers.sandbox.spec import LABEL_TASK, LABEL_WALLET

#: Blocks whose receipts are asked for at a time.
BLOCKS_AT_ONCE = 50
#: How many times the undisturbed seconds the tasks may take that no stranger holds up.
MOST_RATIO = 2.0
#: Undisturbed seconds from which on that is judged: one restart of a server takes as long as a shorter run.
JUDGED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The line of JSON. Seconds are from the purchase to the last end on chain."""

    tasks: int
    completed: int
    failed_claimed: int
    #: Of those, tasks that strangers alone decided: nobody else could reveal or bring the result.
    failed_by_strangers: int
    #: Containers started for a task on a machine that had started one for it already.
    duplicates: int
    #: Transactions of the pool's owner and machines that reverted.
    reverts: int
    nonce_gaps: int
    #: nRLC of the pool's owner, its machines and the strangers.
    stake_locked: int
    #: Tasks that are COMPLETED for the database only, or for the contract only.
    database_differs: int
    #: Most seconds by which the n-th task to end ended later than the n-th of the undisturbed run.
    worst_delay_seconds: float
    seconds: float
    undisturbed_seconds: float
    seed: int
    #: Tasks whose vote a stranger won and did not reveal: PoCo has the others wait for twice the category's time.
    held_up: int = 0
    #: Seconds until the last of all other tasks ended.
    seconds_not_held_up: float = 0.0
    #: By kind: faults that struck.
    faults: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The fields, in order."""
        return asdict(self)

    def wrong(self) -> Iterator[str]:
        """A sentence for each promise that this run broke."""
        open_ = self.tasks - self.completed - self.failed_claimed
        if open_:
            yield f"{open_} of {self.tasks} tasks have not ended."
        if with_say := self.failed_claimed - self.failed_by_strangers:
            yield f"{with_say} of {self.tasks} tasks FAILED though a machine of the pool had a say in them."
        for name in ("duplicates", "nonce_gaps", "stake_locked", "database_differs"):
            if getattr(self, name):
                yield f"{name}: {getattr(self, name)}, not 0."
        most = MOST_RATIO * self.undisturbed_seconds
        if self.undisturbed_seconds >= JUDGED_SECONDS and self.seconds_not_held_up > most:
            yield f"The tasks took {self.seconds_not_held_up:g} s, more than {MOST_RATIO:g} times the undisturbed time."


def worst_delay(ended: Iterable[float], undisturbed: Iterable[float]) -> float:
    """Most seconds by which the n-th end came later than the n-th undisturbed one; 0 if none did."""
    return max(0.0, *(late - early for late, early in zip(sorted(ended), sorted(undisturbed), strict=False)), 0.0)


def failed_by(strangers: set[Wallet], views: Iterable[ChainView]) -> set[TaskId]:
    """Tasks that FAILED after these strangers alone had agreed on a result."""
    return {
        view.task_id
        for view in views
        if view.status is TaskStatus.FAILED and view.winners and {vote.worker for vote in view.winners} <= strangers
    }


def held_up_by(strangers: set[Wallet], views: Iterable[ChainView]) -> set[TaskId]:
    """Tasks that ended only after a deadline, because one of these strangers won a vote and did not reveal it."""
    return {
        view.task_id
        for view in views
        if any(
            vote.worker in strangers
            and (vote.status is ContributionStatus.REJECTED or (vote in view.winners and vote not in view.revealed))
            for vote in view.contributions
        )
    }


def count_reverts(bench_pool: BenchPool, wallets: Sequence[Wallet], first: BlockNumber) -> int:
    """How many transactions of these wallets from block `first` on have reverted, by their receipts."""
    rpc, senders = bench_pool.rpc, {wallet.lower() for wallet in wallets}
    head, found = bench_pool.hub.head(), 0
    for low in range(first, head + 1, BLOCKS_AT_ONCE):
        asked = [("eth_getBlockReceipts", (hex(number),)) for number in range(low, min(low + BLOCKS_AT_ONCE, head + 1))]
        for receipts in values(decode_replies(rpc.batch(asked), list), rpc.name):
            found += sum(int(one["status"], 16) == 0 and one["from"].lower() in senders for one in receipts)
    return found


@contextmanager
def counting_starts(docker_host: str) -> Iterator[Counter[tuple[TaskId, str]]]:
    """Count the containers that the engine starts inside the `with` block, by (task, wallet)."""
    starts: Counter[tuple[TaskId, str]] = Counter()
    engine = docker.DockerClient(base_url=docker_host)
    events = engine.events(decode=True, filters={"event": "start", "label": LABEL_TASK})

    def count() -> None:
        """Body of the thread: count the engine's start events."""
        for event in events:
            labels = event["Actor"]["Attributes"]
            starts[TaskId(labels[LABEL_TASK]), labels[LABEL_WALLET]] += 1

    thread = threading.Thread(target=count, name="starts", daemon=True)
    thread.start()
    try:
        yield starts
    finally:
        events.close()
        thread.join()
        engine.close()


def duplicates(starts: Counter[tuple[TaskId, str]], tasks: Sequence[TaskId]) -> list[str]:
    """A sentence for each start beyond the first of a task on a machine."""
    ours = set(tasks)
    return [
        f"Task {task}: wallet {wallet} started its container {count} times."
        for (task, wallet), count in starts.items()
        for _ in range(count - 1)
        if task in ours
    ]


def poll_until_zero(read: Callable[[], int], seconds: float) -> int:
    """Call `read` once a second until it returns 0, for at most so many seconds; returns what it returned last."""
    until, pause = time.monotonic() + seconds, threading.Event()
    while (found := read()) and time.monotonic() < until:
        pause.wait(1.0)
    return found
