"""Two processes keep the same books at a time, on a real MongoDB: whoever is slower loses no row and doubles none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.collection import Collection
from pymongo.database import Database

from chain.watch.escrow import Holdings, Passage
from config.settings import read_settings
from ops.stack.stack import Stack
from pipeline.domain.money.ledger import Books, Outside
from pipeline.domain.money.statement import By
from pipeline.flow.money.ledger import WalletLedger
from pipeline.store.client import database
from pipeline.store.money import ledger
from pipeline.store.money.ledger import BlocksRead, Movements
from protocol.errors import RpcUnavailable
from protocol.poco.events import BlockRef
from protocol.poco.money import EVEN, Kind
from protocol.types import BlockNumber, Contract, Nonce, Timestamp, Wallet, Wei
from tests.integration.conftest import given
from tests.unit.pipeline.money.test_ledger import FINALITY, ME, block_hash, movement

HUB = Contract("0x" + "4b" * 20)
#: What others sent to the wallet, wei by block; and blocks in which the hub rewarded it with as many nRLC.
GIFTS, REWARDS = {110: 5, 125: 7, 160: 11}, (105, 120, 150, 165)
BEGUN, OLDER, NEWER = 100, 140, 170
#: Things that a process asks the node and the database in one catch-up, at most.
STEPS = range(24)
HOUR = 3700.0


@dataclass
class View:
    """What one node shows of a chain in which the wallet is given native token and earns RLC."""

    final: int
    #: It keeps the state of the last block that it is asked for only.
    pruned: bool = False
    #: It leaves logs out.
    hides: bool = False
    wallet: Wallet = ME
    most: int = field(default=0)

    @property
    def rpc(self) -> Any:
        return SimpleNamespace(name="node", call=self._call)

    def _call(self, method: str, *_: Any) -> Any:
        return hex(self.final + FINALITY) if method == "eth_blockNumber" else None

    def passage(self, first: BlockNumber, last: BlockNumber) -> Passage:
        ref = BlockRef(last, block_hash(last), block_hash(last - 1), Timestamp(1))
        self.most = last
        moved = [] if self.hides else [movement(Kind.REWARD, at, block=at) for at in REWARDS if first <= at <= last]
        return Passage(ref, tuple(moved), self._held(last))

    def holdings(self, at: Sequence[BlockNumber]) -> list[Holdings | None]:
        return [None if self.pruned and self.most and number < self.most else self._held(number) for number in at]

    @staticmethod
    def _held(at: int) -> Holdings:
        account = EVEN.after([movement(Kind.REWARD, block, block=block) for block in REWARDS if block <= at])
        return Holdings(account, Wei(1000 + sum(wei for block, wei in GIFTS.items() if block <= at)), Nonce(0))


class Watched:
    """Passes everything on, and lets something happen before one of the things that it is asked for."""

    def __init__(self, inner: Any, ask: Callable[[str], None]) -> None:
        self._inner, self._ask = inner, ask

    def __getattr__(self, name: str) -> Any:
        self._ask(name)
        return getattr(self._inner, name)


@pytest.fixture
def db(stack: Stack, emptied_database: str) -> Database[dict[str, Any]]:
    found = database(read_settings(**(given(stack.settings) | {"mongodb_database": emptied_database})))
    ledger.ensure_indexes(found)
    return found


def process(
    db: Database[dict[str, Any]], view: View, now: float = 1e6, ask: Callable[[str], None] = lambda _: None
) -> WalletLedger:
    """One process: the ledger as the scheduler or the API keeps it."""
    gas: Any = SimpleNamespace(unsettled=lambda *_: 0, between=lambda *_: [])
    movements: Any = Watched(Movements(db, 1, HUB, ME), ask)
    reader: Any = Watched(view, ask)
    return WalletLedger(movements, gas, reader, FINALITY, lambda: now, lambda: None, lambda: False)


def noted(db: Database[dict[str, Any]]) -> list[Outside]:
    return Movements(db, 1, HUB, ME).outside(0.0, 100)


def rewarded(db: Database[dict[str, Any]], up_to: int) -> int:
    return sum(each.amount for each in Movements(db, 1, HUB, ME).summed(By.KIND, 0.0, BlockNumber(up_to)))


def overlapped(db: Database[dict[str, Any]], step: int, slower: View, faster: View) -> bool:
    """Both catch up: the faster one from its beginning to its end before the slower one does its step with that number;
    whether there was such a step.
    """
    process(db, View(BEGUN)).catch_up(60.0)
    steps = iter(STEPS)

    def ask(_: str) -> None:
        if next(steps, None) == step:
            process(db, faster).catch_up(60.0)

    process(db, slower, ask=ask).catch_up(60.0)
    return next(steps, STEPS.stop) > step


@pytest.mark.parametrize("pruned", [(False, False), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("finals", [(OLDER, NEWER), (NEWER, OLDER), (NEWER, NEWER)], ids=str)
def test_what_one_process_noted_from_outside_is_neither_lost_nor_doubled_by_a_slower_one(
    db: Database[dict[str, Any]], finals: tuple[int, int], pruned: tuple[bool, bool]
) -> None:
    reached = 0
    for step in STEPS:
        for name in ("movements", "cursors"):
            db[name].delete_many({})
        slower, faster = (View(final, none) for final, none in zip(finals, pruned, strict=True))
        reached += overlapped(db, step, slower, faster)
        books, _ = process(db, View(NEWER)).catch_up(60.0)
        assert books.native is not None
        found = noted(db)
        assert sum(each.wei for each in found) == sum(GIFTS.values()), step
        assert all(one.until <= other.after for one, other in pairwise(found)), step
        assert rewarded(db, books.block) == sum(REWARDS), step
    assert reached > 5


@pytest.mark.parametrize("finals", [(OLDER, NEWER), (NEWER, OLDER), (NEWER, NEWER)], ids=str)
def test_a_slower_process_whose_node_leaves_logs_out_takes_none_of_a_faster_ones_rows(
    db: Database[dict[str, Any]], finals: tuple[int, int]
) -> None:
    for step in STEPS:
        for name in ("movements", "cursors"):
            db[name].delete_many({})
        overlapped(db, step, View(finals[0], hides=True), View(finals[1]))
        # What does not add up is read again an hour later; what was proved is not.
        for hour in (1, 2):
            books, _ = process(db, View(NEWER + hour), 1e6 + hour * HOUR).catch_up(60.0)
        assert (books.proved, rewarded(db, NEWER)) == (NEWER + 2, sum(REWARDS)), step


def test_a_process_that_ends_between_the_mark_and_the_rows_leaves_both_to_the_next(
    db: Database[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = process(db, View(BEGUN)).catch_up(60.0)

    def ends(*_: Any, **__: Any) -> None:
        raise RpcUnavailable(what="this process", why="it ends here")

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "bulk_write", ends)
        with pytest.raises(RpcUnavailable):
            process(db, View(OLDER)).catch_up(60.0)
    assert Movements(db, 1, HUB, ME).books() == before
    process(db, View(NEWER)).catch_up(60.0)
    assert [each.wei for each in noted(db)] == list(GIFTS.values())
    assert rewarded(db, NEWER) == sum(REWARDS)


def test_of_steps_at_the_same_moment_one_is_stored_with_its_rows_and_all_get_its_books(
    db: Database[dict[str, Any]],
) -> None:
    before, _ = process(db, View(BEGUN)).catch_up(60.0)

    def step(number: int) -> Books:
        last = BlockNumber(BEGUN + number)
        moved = [movement(Kind.REWARD, number, block=BEGUN + 1, fork=number)]
        return Movements(db, 1, HUB, ME).store(before, before.with_movements(last, moved), BlocksRead(last, moved))

    with ThreadPoolExecutor(4) as pool:
        (stored,) = set(pool.map(step, range(1, 9)))
    assert stored.version == before.version + 1
    assert rewarded(db, NEWER) == stored.account.stake == stored.block - BEGUN
