"""The watcher against a chain that does everything chains do, in any order, with crashes in between.

Two pools share the hub. Only one of them is watched, and a reorganisation may give a task from one to the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chain.contracts.decode import decode
from chain.contracts.hub import Hub
from chain.rpc.announced import Announced
from chain.testing import FakeChain, MemoryWatchStore
from chain.watch.audit import audit, replay
from chain.watch.watcher import Watcher
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco import events
from protocol.poco.events import BlockRef
from protocol.types import BlockNumber, Contract, Hash32, TaskId, Wallet

HUB = Contract("0x" + "cc" * 20)
POOL, OTHER_POOL = Contract("0x" + "aa" * 20), Contract("0x" + "ab" * 20)
WORKER, VOTE = Wallet("0x" + "bb" * 20), Hash32("0x" + "22" * 32)
LOOKBACK = 6
#: What happens in a block: a number per event.
CHOICES = st.lists(st.integers(0, 400), max_size=4)


class Following(RuleBasedStateMachine):
    """Whatever happened, one undisturbed look at the chain afterwards leaves exactly its events in the store."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = FakeChain(HUB)
        # A first block that no reorganisation reaches, as on every real chain.
        self.chain.mine(empty=LOOKBACK)
        self.store = MemoryWatchStore()
        self.numbers = itertools.count()
        self.named: set[TaskId] = set()
        #: Tasks that began on any branch, and those of them that were ever the watched pool's.
        self.ever: set[TaskId] = set()
        self.once_ours: set[TaskId] = set()
        self.highest = 0
        self.announced = Announced()
        self.put = self.announced.begin()
        #: Which new blocks are announced: this many of the last ones. 0: there is no subscription.
        self.heard = 0
        self.start()

    def start(self) -> None:
        """As a new process."""
        self.put = self.announced.begin()
        self.watching = Watcher(
            self.chain, Hub(self.chain, HUB), POOL, self.store, lookback=LOOKBACK, announced=self.announced
        )

    def happens(self, choices: Sequence[int]) -> list[events.Event]:
        """An event for each number: a task of either pool begins, perhaps one that was taken back, or gets a vote."""
        begun = [event.task_id for event in self.on_chain() if isinstance(event, events.TaskInitialize)]
        happened: list[events.Event] = []
        for choice in choices:
            kind, rest = choice % 4, choice // 4
            if kind < 2 or not begun:
                lost = sorted(self.ever - set(begun))
                task = lost[rest % len(lost)] if kind and lost else TaskId(f"0x{next(self.numbers):064x}")
                self.ever.add(task)
                begun.append(task)
                pool = POOL if rest % 3 else OTHER_POOL
                if pool == POOL:
                    self.once_ours.add(task)
                happened.append(events.TaskInitialize(task, pool))
            elif kind == 2:
                happened.append(events.TaskContribute(begun[rest % len(begun)], WORKER, VOTE))
            else:
                happened.append(events.FaultyContribution(WORKER, begun[rest % len(begun)]))
        return happened

    def on_chain(self) -> list[events.Event]:
        return [event for block in self.chain._blocks for event in block_events(block.logs)]

    def expected(self) -> list[events.TaskEvent]:
        """What concerns the watched pool."""
        happened = [event for event in self.on_chain() if not isinstance(event, events.SchedulerNotice)]
        ours = {e.task_id for e in happened if isinstance(e, events.TaskInitialize) and e.workerpool == POOL}
        return [event for event in happened if event.task_id in ours]

    def possible(self, depth: int) -> int:
        """How many blocks may go at most: as on real chains, none that the watcher's lookback does not cover."""
        cursor = self.store.cursor()
        # Counted from the highest block ever followed: reorganisations add up while no step can be stored.
        self.highest = max(self.highest, cursor.number if cursor is not None else 0)
        floor = max(LOOKBACK, self.highest - LOOKBACK)
        return max(0, min(depth, self.chain.head - floor))

    def replace(self, depth: int, choices: Sequence[int]) -> None:
        if depth := self.possible(depth):
            self.chain.rollback(depth)
            self.grow(choices, depth - 1)

    def grow(self, choices: Sequence[int], empty: int) -> None:
        first = self.chain.head + 1
        self.chain.mine(*self.happens(choices), empty=empty)
        if self.heard:
            self.chain.announce(self.put, max(first, self.chain.head + 1 - self.heard))

    def look(self) -> None:
        # The subscription may be another node's than the one that is behind.
        lag = 0 if self.heard else self.chain.lag
        for caught in self.watching.catch_up(BlockNumber(self.chain.head - lag)):
            self.named.update(caught.tasks)

    # -- what chains do ------------------------------------------------------------------------------------------------

    @rule(choices=CHOICES, empty=st.integers(0, 20))
    def mine(self, choices: list[int], empty: int) -> None:
        self.grow(choices, empty)

    @rule(heard=st.sampled_from([0, 1, 100]))
    def subscribe(self, heard: int) -> None:
        self.heard = heard
        self.put = self.announced.begin()

    @rule(depth=st.integers(1, LOOKBACK), choices=CHOICES)
    def reorg(self, depth: int, choices: list[int]) -> None:
        self.replace(depth, choices)

    @rule(depth=st.integers(1, LOOKBACK))
    def rollback(self, depth: int) -> None:
        if depth := self.possible(depth):
            self.chain.rollback(depth)

    @rule(blocks=st.integers(0, LOOKBACK))
    def lag(self, blocks: int) -> None:
        self.chain.lag = blocks

    @rule(blocks=st.integers(1, 40))
    def limit_ranges(self, blocks: int) -> None:
        self.chain.most_blocks = blocks

    @rule(number=st.integers(0, 200))
    def hide(self, number: int) -> None:
        self.chain.hides_logs_of.add(number)

    # -- what processes do ---------------------------------------------------------------------------------------------

    @rule()
    def catch_up(self) -> None:
        try:
            self.look()
        except RpcUnavailable as error:
            assert "far below" in str(error)

    @rule()
    def restart(self) -> None:
        self.start()

    @rule(after=st.integers(0, 12))
    def crash_while_reading(self, after: int) -> None:
        left = after

        def freeze(_: str) -> None:
            nonlocal left
            left -= 1
            self.chain.frozen = left < 0

        self.chain.before_answer = freeze
        try:
            self.look()
        except RpcUnavailable:
            self.start()
        finally:
            self.chain.before_answer = lambda _: None
            self.chain.frozen = False

    @rule()
    def crash_while_storing(self) -> None:
        def freeze() -> None:
            raise RpcUnavailable(what="the store", why="it is away")

        self.store.before_cursor = freeze
        try:
            self.look()
        except RpcUnavailable:
            self.start()
        finally:
            self.store.before_cursor = lambda: None

    @rule(after=st.integers(0, 8), depth=st.integers(1, LOOKBACK), choices=CHOICES)
    def reorg_while_reading(self, after: int, depth: int, choices: list[int]) -> None:
        left = after

        def replace(_: str) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                self.replace(depth, choices)

        self.chain.before_answer = replace
        try:
            self.look()
        except (RpcError, RpcUnavailable):
            self.start()
        finally:
            self.chain.before_answer = lambda _: None

    # -- what must hold ------------------------------------------------------------------------------------------------

    @rule()
    def an_undisturbed_look_leaves_exactly_the_chains_events(self) -> None:
        self.chain.lag = 0
        self.grow((), 0)
        # The first look may end early where the chain changed under an earlier one; the second may not.
        for _ in range(2):
            self.look()

        assert self.store.events == self.expected()
        assert self.store.cursor() == self.chain.ref(self.chain.head)
        assert {event.task_id for event in self.expected()} <= self.named
        assert self.named <= self.once_ours

    @rule(losses=st.lists(st.integers(0, 1000), max_size=6))
    def what_was_lost_is_found_and_brought_back(self, losses: list[int]) -> None:
        self.an_undisturbed_look_leaves_exactly_the_chains_events()
        places = sorted(self.store.present)
        lost = {places[number % len(places)] for number in losses if places}
        for place in lost:
            del self.store.present[place]

        found = audit(self.watching, self.store, BlockNumber(0), self.chain.head)
        assert {seen.place for one in found for seen in one.missing} == lost
        list(replay(self.watching, self.store, BlockNumber(0), self.chain.head))
        assert self.store.events == self.expected()

    @invariant()
    def the_stored_blocks_below_the_cursor_are_linked(self) -> None:
        cursor = self.store.cursor()
        below: BlockRef | None = cursor
        while below is not None:
            parent = self.store.block(BlockNumber(below.number - 1))
            assert parent is None or parent.hash == below.parent_hash
            below = parent


def block_events(logs: tuple[dict[str, object], ...]) -> list[events.Event]:
    return [event for event in (decode(log) for log in logs) if event is not None]


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
