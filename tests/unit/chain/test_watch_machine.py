"""The watcher against a chain that does everything chains do, in any order, with crashes in between."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chain.decode import decode
from chain.hub import Hub
from chain.testing import FakeChain, MemoryWatchStore
from chain.watch import Watcher
from protocol import events
from protocol.errors import RpcError, RpcUnavailable
from protocol.events import BlockRef
from protocol.types import BlockNumber, Contract, TaskId

HUB = Contract("0x" + "cc" * 20)
POOL = Contract("0x" + "aa" * 20)
LOOKBACK = 6


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
        self.highest = 0
        self.start()

    def start(self) -> None:
        """As a new process."""
        self.watching = Watcher(self.chain, Hub(self.chain, HUB), POOL, self.store, lookback=LOOKBACK)

    def new_task(self) -> events.TaskInitialize:
        return events.TaskInitialize(TaskId(f"0x{next(self.numbers):064x}"), POOL)

    def possible(self, depth: int) -> int:
        """How many blocks may go at most: as on real chains, none that the watcher's lookback does not cover."""
        cursor = self.store.cursor()
        # Counted from the highest block ever followed: reorganisations add up while no step can be stored.
        self.highest = max(self.highest, cursor.number if cursor is not None else 0)
        floor = max(LOOKBACK, self.highest - LOOKBACK)
        return max(0, min(depth, self.chain.head - floor))

    def replace(self, depth: int, logs: int) -> None:
        if depth := self.possible(depth):
            self.chain.reorg(depth, *(self.new_task() for _ in range(logs)))

    def look(self) -> None:
        for caught in self.watching.catch_up(BlockNumber(self.chain.head - self.chain.lag)):
            self.named.update(caught.tasks)

    # -- what chains do ------------------------------------------------------------------------------------------------

    @rule(logs=st.integers(0, 3), empty=st.integers(0, 20))
    def mine(self, logs: int, empty: int) -> None:
        self.chain.mine(*(self.new_task() for _ in range(logs)), empty=empty)

    @rule(depth=st.integers(1, LOOKBACK), logs=st.integers(0, 2))
    def reorg(self, depth: int, logs: int) -> None:
        self.replace(depth, logs)

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

    @rule(after=st.integers(0, 8), depth=st.integers(1, LOOKBACK))
    def reorg_while_reading(self, after: int, depth: int) -> None:
        left = after

        def replace(_: str) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                self.replace(depth, 1)

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
        self.chain.mine()
        # The first look may end early where the chain changed under an earlier one; the second may not.
        for _ in range(2):
            self.look()

        assert self.store.events == [event for block in self.chain._blocks for event in block_events(block.logs)]
        assert self.store.cursor() == self.chain.ref(self.chain.head)
        happened = {event.task_id for event in self.store.events if isinstance(event, events.TaskInitialize)}
        assert happened <= self.named

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
