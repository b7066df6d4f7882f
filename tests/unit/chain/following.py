"""A watched pool on a scripted chain: what tests of the watcher begin with."""

from __future__ import annotations

from chain.contracts.hub import Hub
from chain.rpc.announced import Announced
from chain.testing import FakeChain, MemoryWatchStore
from chain.watch.watcher import Caught, Watcher
from protocol.poco import events
from protocol.types import BlockNumber, Contract, Hash32, TaskId, Wallet

HUB = Contract("0x" + "cc" * 20)
POOL = Contract("0x" + "aa" * 20)
OTHER_POOL = Contract("0x" + "ab" * 20)
WORKER = Wallet("0x" + "bb" * 20)
LOOKBACK = 8


def task(number: int) -> TaskId:
    return TaskId(f"0x{number:064x}")


def initialized(number: int, pool: Contract = POOL) -> events.TaskInitialize:
    return events.TaskInitialize(task(number), pool)


def vote(number: int) -> events.TaskContribute:
    return events.TaskContribute(task(number), WORKER, Hash32("0x" + "22" * 32))


def watcher(
    chain: FakeChain, store: MemoryWatchStore, start_block: int = 0, announced: Announced | None = None
) -> Watcher:
    return Watcher(chain, Hub(chain, HUB), POOL, store, lookback=LOOKBACK, start_block=start_block, announced=announced)


def catch_up(watching: Watcher, chain: FakeChain) -> list[Caught]:
    return list(watching.catch_up(BlockNumber(chain.head - chain.lag)))


def tasks_of(caught: list[Caught]) -> list[TaskId]:
    return [task_id for one in caught for task_id in one.tasks]
