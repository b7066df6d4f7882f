"""A pool, its market and its chain in memory, for tests of what the pool offers: actions take effect as they would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from config.values.order_policy import OrderPolicy
from pipeline.domain.orders.offers import Book, Supply, decide
from pipeline.domain.orders.records import (
    Close,
    End,
    OrderAction,
    OrderRecord,
    OrderStage,
    Publish,
    Recheck,
    Sign,
    Unpublish,
    Withdraw,
)
from pipeline.domain.orders.spare_capacity import PoolTerms
from pipeline.domain.records import TaskRecord, WorkerRecord
from pipeline.domain.replicas import newcomers_left
from protocol.poco.orders import WorkerpoolOrder
from protocol.poco.weights import replicates_needed
from protocol.types import BlockNumber, Hash32, NRlc
from tests.unit.pipeline.builders import CONTRIBUTE_UNTIL, PACE, POOL, START, initialized, task, view

MARKET = "https://market.example"
FINALITY = 3
#: Rounds after which nothing may be left to do in a world that stands still.
MOST_ROUNDS = 20


def policy(*offers: dict[str, object], **fields: object) -> OrderPolicy:
    """A policy with these offers, each of category 0 and for nothing unless it says otherwise."""
    given = [{"category": 0, "price": "free", **offer} for offer in offers]
    return OrderPolicy.model_validate({"market": MARKET, "offer": given, **fields})


def order(number: int, volume: int = 1, **fields: object) -> OrderRecord:
    """A published order of category 0, trust 1, for nothing."""
    terms = WorkerpoolOrder(workerpool=POOL, volume=volume, category=0, trust=1, salt=Hash32(f"0x{number:064x}"))
    record = OrderRecord(Hash32(f"0x{number:064x}"), number, terms, MARKET, 0.0, OrderStage.PUBLISHED, shown=True)
    record = replace(record, listed=True, looked_at=START)
    return replace(record, **fields)  # type: ignore[arg-type]  # tests name fields freely


@dataclass
class World:
    """What there is. `answers`: whether the market answers; `now`: Unix seconds."""

    policy: OrderPolicy | None
    machines: list[WorkerRecord] = field(default_factory=list)
    waiting: list[TaskRecord] = field(default_factory=list)
    orders: dict[Hash32, OrderRecord] = field(default_factory=dict)
    stake: int = 10**12
    now: float = 1000.0
    block: int = 100
    paused: bool = False
    outage: bool = False
    silent: list[WorkerRecord] = field(default_factory=list)
    newcomers_decide: bool = False
    held: bool = False
    answers: bool = True
    #: Orders that the market lists no longer by itself.
    dead: set[Hash32] = field(default_factory=set)
    #: Orders that the lane was asked to close.
    closing: set[Hash32] = field(default_factory=set)
    #: (when, what) of each action that was taken.
    taken: list[tuple[float, OrderAction]] = field(default_factory=list)
    last: int = 0

    def supply(self) -> Supply:
        terms = PoolTerms(NRlc(self.stake), 30)
        return Supply(
            tuple(self.machines),
            tuple(self.waiting),
            terms,
            paused=self.paused,
            silent=tuple(self.silent),
            outage=self.outage,
            newcomers_decide=self.newcomers_decide,
        )

    def decide(self) -> list[OrderAction]:
        book = Book(tuple(self.orders.values()), held=self.held, block=BlockNumber(self.block), finality=FINALITY)
        return decide(self.policy, self.supply(), book, self.now)

    def settle(self) -> None:
        """Act until nothing is left to do but to wait for time, blocks or the market."""
        for _ in range(MOST_ROUNDS):
            actions = [action for action in self.decide() if not self._is_waiting(action)]
            if not actions:
                return
            for action in actions:
                self._do(action)
        raise AssertionError(f"it does not come to rest: {actions}")

    def mine(self) -> None:
        """The lane's transactions get into a block."""
        self.block += 1
        for order_hash in self.closing:
            found = self.orders[order_hash]
            self._change(order_hash, consumed=found.order.volume)
        self.closing.clear()
        for order_hash, found in self.orders.items():
            if not found.remaining and found.spent_block is None:
                self._change(order_hash, spent_block=BlockNumber(self.block))

    def live(self) -> list[OrderRecord]:
        return [found for found in self.orders.values() if found.live]

    def offered(self) -> int:
        return sum(found.remaining for found in self.live())

    def did(self, kind: type[OrderAction]) -> list[OrderAction]:
        return [action for _, action in self.taken if isinstance(action, kind)]

    def _is_waiting(self, action: OrderAction) -> bool:
        if isinstance(action, Publish | Recheck | Unpublish):
            return not self.answers
        return isinstance(action, Close) and action.order_hash in self.closing

    def _do(self, action: OrderAction) -> None:
        self.taken.append((self.now, action))
        match action:
            case Sign():
                self.last += 1
                terms = WorkerpoolOrder(
                    workerpool=POOL,
                    workerpoolprice=action.price,
                    volume=action.volume,
                    tag=action.tag,
                    category=action.category,
                    trust=action.trust,
                    salt=Hash32(f"0x{self.last:064x}"),
                )
                key = Hash32(f"0x{self.last:064x}")
                self.orders[key] = OrderRecord(key, self.last, terms, action.market, self.now)
            case Publish(key):
                self.dead.discard(key)
                self._change(key, stage=OrderStage.PUBLISHED, shown=True, listed=True, looked_at=self.now)
            case Recheck(key):
                missing = {"stage": OrderStage.SIGNED} if key in self.dead else {"looked_at": self.now}
                self._change(key, **missing)
            case Withdraw(key, why):
                self._change(key, stage=OrderStage.WITHDRAWN, why=why, withdrawn_at=self.now)
            case Unpublish(key):
                self._change(key, listed=False)
            case Close(key):
                self.closing.add(key)
            case End(key):
                found = self.orders[key]
                self._change(key, stage=OrderStage.ENDED, withdrawn_at=found.withdrawn_at or self.now)

    def _change(self, order_hash: Hash32, **fields: object) -> None:
        self.orders[order_hash] = replace(self.orders[order_hash], **fields)  # type: ignore[arg-type]


#: A task: its tag, machines that it takes, and how many of them must have been right on chain before.
Takes = tuple[Hash32, int, int]


def can_serve(machines: Sequence[WorkerRecord], tasks: Sequence[Takes]) -> bool:
    """Whether these tasks can all be placed, each on machines of its own: a flow, found by augmenting paths, and
    nothing of the code that decides.
    """
    free = {worker.wallet: worker.free for worker in machines}
    tags = {worker.wallet: int(worker.tag, 16) for worker in machines}
    right = {worker.wallet: worker.successes > 0 for worker in machines}
    #: On each machine, task -> whether its place there is one that only a proven machine fills.
    placed: dict[str, dict[int, bool]] = {wallet: {} for wallet in free}

    def place(task: int, strict: bool, seen: set[tuple[str, int | None]]) -> bool:
        for wallet, slots in free.items():
            if int(tasks[task][0], 16) & ~tags[wallet] or (strict and not right[wallet]):
                continue
            there = placed[wallet]
            # A task has one place on a machine; any task may leave a full one.
            node = (wallet, task if task in there else None)
            if node in seen:
                continue
            seen.add(node)
            if task not in there and len(there) < slots:
                there[task] = strict
                return True
            for other, kind in [(task, there[task])] if task in there else list(there.items()):
                if other != task and (wallet, other) in seen:
                    continue
                seen.add((wallet, other))
                if place(other, kind, seen):
                    if other != task:
                        del there[other]
                    there[task] = strict
                    return True
        return False

    return all(
        place(task, number < proven, set()) for task, (_, count, proven) in enumerate(tasks) for number in range(count)
    )


def proven_needed(trust: int) -> int:
    """Proven machines without which nobody decides a task of this trust, by the rule that gives tasks to machines."""
    fresh, later = task(trust=trust), float(CONTRIBUTE_UNTIL)
    machines = max(1, replicates_needed(trust, {}))
    return max(0, machines - newcomers_left(fresh, view(initialized()), later, PACE))


def tasks_of(orders: Sequence[OrderRecord]) -> list[Takes]:
    """The tasks that can still be bought with these orders."""
    return [
        (found.order.tag, max(1, replicates_needed(found.order.trust, {})), proven_needed(found.order.trust))
        for found in orders
        for _ in range(found.remaining)
    ]
