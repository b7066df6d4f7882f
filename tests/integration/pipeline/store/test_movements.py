"""The ledger's collection on a real MongoDB: what is stored is what is summed, and ranges and books move once."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from chain.watch.escrow import Holdings, Passage
from config.metrics import REWARDS
from config.settings import read_settings
from ops.stack.stack import Stack
from pipeline.api.admin.answers.money import Reconciled
from pipeline.api.admin.ledger import MOST_OUTSIDE, reconciled
from pipeline.domain.money.ledger import Books, Mark, Outside
from pipeline.domain.money.statement import By, statement
from pipeline.flow.money.ledger import LedgerView
from pipeline.store.client import database
from pipeline.store.money import ledger
from pipeline.store.money.ledger import BlocksRead, Movements
from protocol.poco.events import BlockRef
from protocol.poco.money import EVEN, Balances, Kind, Movement
from protocol.types import BlockNumber, Contract, Nonce, TaskId, Timestamp, Wallet, Wei
from tests.integration.conftest import given
from tests.unit.pipeline.money.test_ledger import ME, OTHER, block_hash, movement

HUB = Contract("0x" + "4b" * 20)
DAY = 86_400
TASKS = [TaskId(f"0x{number:064x}") for number in range(1, 4)]


@pytest.fixture
def movements(stack: Stack, emptied_database: str) -> Movements:
    db = database(read_settings(**(given(stack.settings) | {"mongodb_database": emptied_database})))
    ledger.ensure_indexes(db)
    return Movements(db, 1, HUB, ME)


def put(movements: Movements, first: int, last: int, found: list[Movement]) -> None:
    """Store these for blocks first … last."""
    even = Books(BlockNumber(1), EVEN, BlockNumber(0), EVEN)
    before = replace(movements.books() or movements.begin(even), block=BlockNumber(first - 1))
    movements.store(before, before.with_movements(BlockNumber(last), found), BlocksRead(BlockNumber(last), found))


def note(movements: Movements, *found: Outside, at: float = 1.0) -> Books:
    """Note these as what came from outside."""
    before = movements.books() or movements.begin(Books(BlockNumber(1), EVEN, BlockNumber(0), EVEN))
    count, wei = before.outside_count + len(found), before.outside_wei + sum(each.wei for each in found)
    return movements.store(
        before, replace(before, outside_count=count, outside_wei=wei), BlocksRead(before.block, (), found, at)
    )


def answer(movements: Movements, books: Books, since: float = 0.0, until: float = math.inf) -> Reconciled:
    """What the API tells of a wallet whose chain equals the books."""
    ref = BlockRef(books.block, block_hash(books.block), block_hash(books.block), Timestamp(1))
    passage = Passage(ref, (), Holdings(books.account, Wei(5), Nonce(0)))
    return reconciled(LedgerView(ME, books, books.block, passage), movements, since, until)


def test_books_that_cannot_be_compared_now_say_up_to_which_block_they_are_and_why(movements: Movements) -> None:
    put(movements, 1, 4, [movement(Kind.DEPOSIT, 7, block=2)])
    books = movements.books()
    assert books is not None
    view = LedgerView(ME, books, None, None, native_unknown="The Ethereum node at x does not answer: no answer.")
    found = reconciled(view, movements, 0.0, math.inf)
    assert (found.unread_blocks, found.block, found.differs_wei, found.differs_stake_nrlc) == (None, None, None, None)
    assert found.says == (
        "These are the books up to block 4; they cannot be compared now: "
        "The Ethereum node at x does not answer: no answer."
    )


def test_rewards_are_counted_once_by_the_process_that_stores_them(movements: Movements) -> None:
    def counted() -> list[float]:
        value = REGISTRY.get_sample_value
        return [value("sluice_rewards_nrlc_total", {"receiver": who}) or 0 for who in ("scheduler", "machines")]

    found = [
        movement(Kind.REWARD, 5, block=2, index=0, owner=ME, task=TASKS[0]),
        movement(Kind.REWARD, 70, block=2, index=1, owner=OTHER, task=TASKS[0]),
        movement(Kind.SEIZE, 900, block=2, index=2, owner=OTHER, task=TASKS[0]),
    ]
    before = movements.begin(Books(BlockNumber(1), EVEN, BlockNumber(0), EVEN))
    for who in ("scheduler", "machines"):
        # Other tests of this process count more than a float adds 5 to.
        REWARDS.labels(who).reset()
    for _ in range(2):
        # The second process read the same blocks and is too late.
        after = before.with_movements(BlockNumber(2), [])
        movements.store(before, after, BlocksRead(BlockNumber(2), found))
    assert counted() == [5, 70]


def life(count: int) -> list[Movement]:
    """Movements of three days and three tasks, as large as all RLC there are."""
    chance = random.Random(7)
    return [
        replace(
            movement(
                chance.choice(list(Kind)),
                chance.randrange(87 * 10**15),
                block=1 + number // 5,
                index=number % 5,
                owner=chance.choice([ME, OTHER]),
                task=chance.choice([None, *TASKS]),
            ),
            at=number * 3 * DAY // count,
        )
        for number in range(count)
    ]


def test_sums_made_by_the_database_are_those_of_the_movements(movements: Movements) -> None:
    moved = life(400)
    put(movements, 1, 1000, moved)
    for by in By:
        for since, until, up_to in ((0, math.inf, 1000), (DAY, 2 * DAY, 1000), (0, DAY, 41), (DAY, math.inf, 999)):
            wanted = [each for each in moved if since <= each.at < until and each.block <= up_to]
            found = movements.summed(by, float(since), BlockNumber(up_to), until)
            lines = [(line.key, line.amounts, line.at) for line in statement(by, ME, [], found, {OTHER})]
            expected = [(line.key, line.amounts, line.at) for line in statement(by, ME, [], wanted, {OTHER})]
            assert sorted(lines, key=str) == sorted(expected, key=str)


def test_a_range_that_is_read_again_is_replaced_and_its_neighbours_stay(movements: Movements) -> None:
    put(movements, 1, 2, [movement(Kind.REWARD, 5, block=1), movement(block=2)])
    put(movements, 2, 9, [movement(Kind.REWARD, 7, block=2, fork=1)])
    for _ in range(2):
        (found,) = movements.summed(By.KIND, 0.0, BlockNumber(9))
        assert found.amount == 12
        put(movements, 2, 9, [movement(Kind.REWARD, 7, block=2, fork=1)])
    others = Movements(movements._rows.database, 1, HUB, Wallet("0x" + "cc" * 20))
    assert others.summed(By.KIND, 0.0, BlockNumber(9)) == []


def test_books_move_under_their_version_and_the_slower_process_gets_those_of_the_faster(movements: Movements) -> None:
    mark = Mark(BlockNumber(4), Wei(10**24), Nonce(3))
    opened = Books(BlockNumber(5), Balances(7, 1), BlockNumber(4), Balances(7, 1), native_opening=mark, native=mark)
    assert movements.books() is None
    assert movements.begin(opened) == opened == movements.books()
    assert movements.begin(replace(opened, first=BlockNumber(99))) == opened
    found = BlocksRead(BlockNumber(9), [movement(Kind.LOCK, 2, block=6)])
    moved = movements.store(opened, opened.with_movements(BlockNumber(9), found.movements), found)
    assert (moved.block, moved.account, moved.version) == (9, Balances(5, 3), 1)
    gift = Outside(BlockNumber(4), BlockNumber(6), 1, 0)
    slower = BlocksRead(BlockNumber(6), [movement(Kind.REWARD, 9, block=5)], [gift])
    assert movements.store(opened, opened.with_movements(BlockNumber(6), []), slower) == moved == movements.books()
    assert movements.summed(By.KIND, 0.0, BlockNumber(9))[0].amount == 2
    assert movements.outside(0.0, 100) == []
    unknown = replace(opened, opening=None, account=EVEN, native=None, native_spent=10**30, version=1)
    assert movements.store(moved, unknown, BlocksRead(BlockNumber(9), ())) == replace(unknown, version=2)
    # Books of before the sums were kept.
    movements._cursors.update_one({"_id": movements._cursor}, {"$unset": {"outside_count": 1, "outside_wei": 1}})
    assert movements.books() == replace(unknown, version=2)


def test_what_came_from_outside_is_noted_once_however_often_it_is_found(movements: Movements) -> None:
    gift = Outside(BlockNumber(3), BlockNumber(4), 10**25, 0, ("0x01",), explained=True)
    wide = Outside(BlockNumber(7), BlockNumber(9), -5, 2)
    for _ in range(2):
        note(movements, gift, wide)
    assert movements.outside(0.0, 100) == [gift, wide]
    assert movements.summed(By.KIND, 0.0, BlockNumber(99)) == []


def test_a_stranger_who_sends_one_wei_a_minute_costs_the_answer_nothing_that_grows(movements: Movements) -> None:
    lost = Outside(BlockNumber(0), BlockNumber(1), -7, 1)
    books = note(movements, lost, at=0.0)
    sizes, looked = [], []
    for minutes in (1000, 3000):
        blocks = range(1 + books.outside_count, minutes)
        gifts = [Outside(BlockNumber(block), BlockNumber(block + 1), 1, 0) for block in blocks]
        books = note(movements, *gifts, at=float(minutes))
        found = answer(movements, books, since=500.0)
        assert (len(found.outside), found.outside[-1].until_block) == (1 + MOST_OUTSIDE, minutes)
        assert len(found.outside) + found.outside_more == books.outside_count == minutes - 1
        assert sum(each.wei for each in found.outside) + found.outside_more_wei == books.outside_wei
        assert found.differs_wei == -7, "it is told however old it is"
        sizes.append(len(found.model_dump_json()))
        query = movements._rows.find({"book": movements._book, "kind": "outside", "at": {"$gte": 500.0}})
        plan = query.sort([("at", -1), ("block", -1)]).limit(MOST_OUTSIDE).explain()
        looked.append(plan["executionStats"]["totalKeysExamined"])
    assert sizes[1] - sizes[0] < MOST_OUTSIDE * 10, "numbers of blocks have a digit more at most"
    assert max(looked) <= MOST_OUTSIDE + 1
    assert answer(movements, books, since=3001.0).outside == [found.outside[0]]
    assert len(answer(movements, books, until=3000.0).outside) == 1 + MOST_OUTSIDE
    assert answer(movements, books, until=1000.0).outside == [found.outside[0]]
    assert answer(movements, books, since=3001.0).outside_more == books.outside_count - 1


def test_a_difference_that_the_operator_accepts_does_not_hide_the_next_one(movements: Movements) -> None:
    old = Outside(BlockNumber(3), BlockNumber(9), -5, 2)
    books = note(movements, old, Outside(BlockNumber(9), BlockNumber(12), 3, 0))
    found = answer(movements, books)
    assert (found.differs_wei, found.differing, found.equal_until_block) == (-5, 1, 3)
    assert [movements.differing_at(BlockNumber(block)) for block in (3, 10)] == [None, None]
    assert movements.differing_at(BlockNumber(4)) == movements.differing_at(BlockNumber(9)) == old
    for block in (3, 10, 9, 9):
        movements.accept(BlockNumber(block), 1.0)
    found = answer(movements, books)
    assert (found.differs_wei, found.differing, found.says.endswith("by 0 wei and 0 nRLC.")) == (0, 0, True)
    assert [(each.accepted, each.differs) for each in found.outside] == [(True, False), (False, False)]
    books = note(movements, Outside(BlockNumber(20), BlockNumber(30), -4, 1))
    found = answer(movements, books)
    assert (found.differs_wei, found.differing, found.equal_until_block) == (-4, 1, 20)


def test_differences_that_add_up_to_nothing_are_two_differences(movements: Movements) -> None:
    books = note(
        movements, Outside(BlockNumber(3), BlockNumber(9), -5, 1), Outside(BlockNumber(20), BlockNumber(30), 5, 1)
    )
    found = answer(movements, books)
    assert (found.differs_wei, found.differing) == (0, 2)
    assert found.says.endswith("it differs by 0 wei and 0 nRLC; all was equal until block 3.")
