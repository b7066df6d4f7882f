"""Whether the hub finalized or paid for a task twice, by its own event logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.rig.bench_pool import BenchPool
from chain.contracts.decode import TOPICS, decode
from chain.contracts.escrow import REWARD, SEIZE, gains
from ops.market.match import Matched
from protocol.poco.events import TaskFinalize
from protocol.types import TaskId, Wallet


@dataclass(frozen=True, slots=True)
class Payments:
    """Of some tasks: how often each was finalized, each of its workers rewarded, and its requester charged."""

    finalized: Mapping[TaskId, int]
    rewarded: Mapping[tuple[TaskId, Wallet], int]
    charged: Mapping[TaskId, int]

    def twice(self) -> list[str]:
        """A sentence for each payment that happened more than once."""
        return [
            *(f"Task {task} was finalized {count} times." for task, count in self.finalized.items() if count > 1),
            *(
                f"Task {task}: wallet {wallet} was rewarded {count} times."
                for (task, wallet), count in self.rewarded.items()
                if count > 1
            ),
            *(
                f"Task {task}: its requester was charged {count} times."
                for task, count in self.charged.items()
                if count > 1
            ),
        ]

    def unpaid(self, completed: Iterable[TaskId]) -> list[str]:
        """A sentence for each of these tasks that was not finalized, or whose payment or rewards are missing."""
        rewarded = {task for task, _ in self.rewarded}
        return [
            f"Task {task} is COMPLETED, and {what}."
            for task in completed
            for what, had in (
                ("has no TaskFinalize", self.finalized.get(task, 0)),
                ("its requester was not charged", self.charged.get(task, 0)),
                ("no worker was rewarded", task in rewarded),
            )
            if not had
        ]


def count_payments(
    logs: Iterable[Mapping[str, Any]], tasks: Sequence[TaskId], workers: Iterable[Wallet], requester: Wallet
) -> Payments:
    """The payments of these tasks among the hub's raw logs. The pool's owner is no worker: the hub's kitty may add a
    reward of its own to the owner's.
    """
    ours, voters, payer = set(tasks), {wallet.lower() for wallet in workers}, requester.lower()
    finalized: Counter[TaskId] = Counter()
    rewarded: Counter[tuple[TaskId, Wallet]] = Counter()
    charged: Counter[TaskId] = Counter()
    for raw in logs:
        if isinstance(event := decode(raw), TaskFinalize):
            finalized[event.task_id] += 1
        for gain in gains([raw]):
            if gain.amount > 0 and gain.wallet.lower() in voters:
                rewarded[gain.task, gain.wallet] += 1
            elif gain.amount < 0 and gain.wallet.lower() == payer:
                charged[gain.task] += 1
    return Payments(
        {task: count for task, count in finalized.items() if task in ours},
        {key: count for key, count in rewarded.items() if key[0] in ours},
        {task: count for task, count in charged.items() if task in ours},
    )


def payments(bench_pool: BenchPool, deals: Sequence[Matched]) -> Payments:
    """The payments of all tasks of `deals`, as the chain has them now."""
    on_chain = bench_pool.pool.on_chain
    since = min(deal.block_number for deal in deals)
    wanted = {
        "address": bench_pool.chain.addresses.hub,
        "fromBlock": hex(since),
        "toBlock": "latest",
        "topics": [[TOPICS["TaskFinalize"], REWARD, SEIZE]],
    }
    logs = bench_pool.rpc.call("eth_getLogs", wanted)
    tasks = [task for deal in deals for task in deal.tasks]
    workers = [worker.key.wallet for worker in on_chain.workers]
    return count_payments(logs, tasks, workers, on_chain.requester.wallet)
