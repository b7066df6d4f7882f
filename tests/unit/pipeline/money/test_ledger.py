"""The books of the scheduler's wallet: sums, proofs and reorganisations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.watch.escrow import Holdings, Passage
from chain.watch.ranges import MOST
from pipeline.domain.money.gas import NO_OP, NonceCost, days_left, split_evenly
from pipeline.domain.money.ledger import Books, Mark, Outside, outside
from pipeline.domain.money.statement import NO_TASK, By, statement, total
from pipeline.flow.money.forecast import sums
from pipeline.flow.money.ledger import WalletLedger
from pipeline.store.money.ledger import BlocksRead
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.events import BlockRef
from protocol.poco.money import EFFECTS, EVEN, Balances, Kind, Movement, pool_stake, scheduler_share
from protocol.types import BlockHash, BlockNumber, DealId, Nonce, TaskId, Timestamp, TxHash, Wallet, Wei

ME, OTHER = Wallet("0x" + "aa" * 20), Wallet("0x" + "bb" * 20)
TASK = TaskId("0x" + "11" * 32)
FINALITY = 3


def movement(
    kind: Kind = Kind.REWARD,
    amount: int = 1,
    *,
    block: int = 1,
    fork: int = 0,
    index: int = 0,
    owner: Wallet = ME,
    task: TaskId | None = None,
) -> Movement:
    return Movement(
        owner,
        kind,
        amount,
        task,
        BlockNumber(block),
        block_hash(block, fork),
        TxHash("0x" + "77" * 32),
        index,
        1000 + block,
    )


def block_hash(number: int, fork: int = 0) -> BlockHash:
    return BlockHash(f"0x{fork:032x}{number:032x}")


def cost(
    nonce: int, *intents: str, fee: int = 10, value: int = 0, success: bool = True, called: bool = True
) -> NonceCost:
    return NonceCost(Nonce(nonce), 1000.0, BlockNumber(nonce), Wei(fee), Wei(value), success, called, intents)


kinds = st.sampled_from(list(Kind))
moves = st.lists(st.builds(movement, kind=kinds, amount=st.integers(0, 10**18), index=st.integers(0, 10**6)))


@given(moves, st.integers(0, 10**18), st.integers(0, 10**18), st.data())
def test_whatever_is_moved_in_whatever_ranges_the_books_end_where_the_account_does(
    moved: list[Movement], stake: int, locked: int, data: st.DataObject
) -> None:
    account = Balances(stake, locked)
    for each in moved:
        of_stake, of_locked = EFFECTS[each.kind]
        account = Balances(account.stake + of_stake * each.amount, account.locked + of_locked * each.amount)
    books = Books(BlockNumber(1), Balances(stake, locked), BlockNumber(0), Balances(stake, locked))
    rest = moved
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        books, rest = books.with_movements(BlockNumber(books.block + 1), rest[:size]), rest[size:]
    assert books.account == account
    proved = books.checked(account, 0.0)
    assert (proved.proved, proved.proved_account, proved.account) == (books.block, account, account)


@given(moves, st.integers(-5, 5), st.integers(-5, 5))
def test_an_opening_that_no_node_keeps_follows_from_the_first_proof(
    moved: list[Movement], free: int, held: int
) -> None:
    books = Books(BlockNumber(1), None, BlockNumber(0), EVEN).with_movements(BlockNumber(9), moved)
    found = Balances(free, held).after(moved)
    proved = books.checked(found, 0.0)
    assert proved.opening == Balances(free, held)
    assert proved.checked(found, 0.0).proved == 9


def test_books_that_do_not_add_up_are_read_again_from_the_last_proof_and_once_an_hour() -> None:
    start = Books(BlockNumber(1), EVEN, BlockNumber(0), EVEN)
    proved = start.with_movements(BlockNumber(5), [movement(amount=3)]).checked(Balances(3, 0), 0.0)
    wrong = proved.with_movements(BlockNumber(9), []).checked(Balances(4, 0), 10_000.0)
    assert (wrong.block, wrong.account, wrong.proved) == (5, Balances(3, 0), 5)
    again = wrong.with_movements(BlockNumber(9), [])
    assert again.checked(Balances(4, 0), 10_001.0) == again
    assert again.checked(Balances(4, 0), 20_000.0).block == 5
    assert start.with_movements(BlockNumber(9), []).checked(Balances(1, 0), 9_999.0).block == 0, (
        "nothing was proved yet"
    )


@given(st.integers(0, 10**24), st.integers(1, 60))
def test_a_transactions_gas_is_shared_without_a_wei_lost(fee: int, parts: int) -> None:
    found = split_evenly(fee, parts)
    assert (sum(found), len(found)) == (fee, parts)
    assert max(found) - min(found) <= 1


methods = st.sampled_from(["initialize", "finalize", "claim", "reopen", "call"])
keys = st.builds(lambda method, n: f"1:{ME}:{method}:0x{n:064x}#2", methods, st.integers(0, 3))
costs = st.lists(
    st.builds(
        cost,
        st.integers(0, 10**6),
        keys,
        keys,
        fee=st.integers(0, 10**20),
        value=st.integers(0, 10**20),
        success=st.booleans(),
        called=st.booleans(),
    )
)


@given(costs, moves)
def test_every_list_has_the_same_sums(paid: list[NonceCost], moved: list[Movement]) -> None:
    found = [total(statement(by, ME, paid, moved)) for by in (By.TASK, By.DAY, By.KIND)]
    assert {line.gas_wei for line in found} == {sum(each.fee for each in paid)}
    assert {line.sent_wei for line in found} == {sum(each.moved for each in paid)}
    assert {line.earned for line in found} == {found[0].earned}
    for kind in Kind:
        amounts = {line.amounts.get(kind, 0) for line in found}
        assert amounts == {sum(each.amount for each in moved if each.kind is kind)}


def test_reverted_and_replaced_transactions_are_told_apart_from_those_that_worked() -> None:
    key = f"1:{ME}:finalize:{TASK}"
    paid = [
        cost(1, key),
        cost(2, key, success=False),
        cost(3, key, called=False),
        cost(4),
        cost(5, f"1:{ME}:call:deposit-7#1700000000000", value=5),
    ]
    lines = {line.key: line for line in statement(By.KIND, ME, paid, [])}
    assert set(lines) == {"gas: finalize", "gas: finalize (reverted)", f"gas: {NO_OP}", "gas: transfer"}
    assert lines[f"gas: {NO_OP}"].transactions == 2
    assert lines["gas: transfer"].sent_wei == 5
    by_task = {line.key: line.gas_wei for line in statement(By.TASK, ME, paid, [])}
    assert by_task == {TASK: 30, NO_TASK: 20}


def test_a_list_by_worker_is_about_the_pools_machines_alone() -> None:
    moved = [
        movement(Kind.REWARD, 5, owner=OTHER, task=TASK),
        movement(Kind.SEIZE, 2, owner=OTHER, task=TASK),
        movement(Kind.REWARD, 9, owner=Wallet("0x" + "cc" * 20), task=TASK),
        movement(Kind.REWARD, 1, task=TASK),
    ]
    (line,) = statement(By.WORKER, ME, [cost(1)], moved, {OTHER})
    assert (line.key, line.earned, line.gas_wei) == (OTHER, 3, 0)
    assert total(statement(By.KIND, ME, [], moved)).amounts == {Kind.REWARD: 1}, "the scheduler's own are its own"


def test_native_token_that_the_lane_did_not_move_is_found_to_the_wei() -> None:
    before = Mark(BlockNumber(1), Wei(1000), Nonce(7))
    paid = [cost(7, fee=100), cost(8, f"1:{ME}:call:deposit-1", fee=50, value=30)]
    assert outside(before, Mark(BlockNumber(9), Wei(820), Nonce(9)), paid, 0) is None
    assert outside(before, Mark(BlockNumber(9), Wei(820 + 2 * 10**9), Nonce(9)), paid, 2) is None
    gift = outside(before, Mark(BlockNumber(9), Wei(825), Nonce(9)), paid, 0)
    assert gift == Outside(BlockNumber(1), BlockNumber(9), 5, 0)
    assert gift.received
    foreign = outside(before, Mark(BlockNumber(9), Wei(819), Nonce(10)), paid, 0)
    assert foreign is not None
    assert (foreign.wei, foreign.foreign, foreign.received) == (-1, 1, False)


def test_gas_lasts_as_long_as_the_average_of_the_last_days_says() -> None:
    assert days_left(100, 20, 2 * 86_400.0) == 10.0
    assert days_left(100, 0, 86_400.0) is None


def test_a_forecast_is_what_the_contract_pays_a_scheduler_at_least() -> None:
    deal: Any = SimpleNamespace(workerpool_price=101, scheduler_reward_ratio=1)
    known, lost = DealId("0x01"), DealId("0x02")
    found = sums({known: 3, lost: 4}, {known: deal})
    # 101 * 99 / 100 is 99 for the workers; 30 % of 101 is 30.
    assert (scheduler_share(101, 1), pool_stake(101)) == (2, 30)
    assert (found.tasks, found.scheduler, found.workers, found.locked, found.unknown_tasks) == (7, 6, 297, 90, 4)


# -- reading ---------------------------------------------------------------------------------------------------------


@dataclass
class FakeChain:
    """A chain whose blocks above final depth may be replaced. It is the reader as well as the store."""

    blocks: list[list[Movement]] = field(default_factory=lambda: [[]])
    forks: list[int] = field(default_factory=lambda: [0])
    most: int = MOST
    #: How often it was asked for the logs of each block.
    asked: dict[int, int] = field(default_factory=dict)
    stored: dict[str, Movement] = field(default_factory=dict)
    kept: Books | None = None
    hides: bool = False
    #: The node does not answer.
    away: bool = False
    wallet: Wallet = ME

    @property
    def rpc(self) -> Any:
        return SimpleNamespace(name="node", call=self._call)

    def _call(self, _: str) -> str:
        if self.away:
            raise RpcUnavailable(what="node", why="no answer within 5 s")
        return hex(len(self.blocks) - 1)

    def mine(self, *amounts: tuple[Kind, int]) -> None:
        number, fork = len(self.blocks), max(self.forks)
        moved = [
            movement(kind, amount, block=number, fork=fork, index=index) for index, (kind, amount) in enumerate(amounts)
        ]
        self.blocks.append(moved)
        self.forks.append(fork)

    def reorganise(self, depth: int, *amounts: tuple[Kind, int]) -> None:
        """Replace the last blocks by as many, the last of which holds these movements."""
        keep = max(1, len(self.blocks) - depth)
        lost, fork = len(self.blocks) - keep, max(self.forks) + 1
        del self.blocks[keep:], self.forks[keep:]
        for number in range(lost):
            self.forks.append(fork)
            here = len(self.blocks)
            found = amounts if number == lost - 1 else ()
            self.blocks.append(
                [movement(kind, amount, block=here, fork=fork, index=i) for i, (kind, amount) in enumerate(found)]
            )

    def account(self, at: int) -> Balances:
        return EVEN.after([each for block in self.blocks[: at + 1] for each in block])

    # -- the reader

    def passage(self, first: BlockNumber, last: BlockNumber) -> Passage:
        if last - first + 1 > self.most:
            raise RpcError(method="eth_getLogs", code=-32005, message=f"limited to {self.most} blocks", data=None)
        for number in range(first, last + 1):
            self.asked[number] = self.asked.get(number, 0) + 1
        ref = BlockRef(last, block_hash(last, self.forks[last]), block_hash(last - 1), Timestamp(1))
        found = [] if self.hides else [each for block in self.blocks[first : last + 1] for each in block]
        return Passage(ref, tuple(found), self.holdings([last])[0])

    def holdings(self, at: Sequence[BlockNumber]) -> list[Holdings]:
        return [Holdings(self.account(number), Wei(5), Nonce(0)) for number in at]

    # -- the store

    def books(self) -> Books | None:
        return self.kept

    def begin(self, books: Books) -> Books:
        self.kept = books
        return books

    def store(self, before: Books, after: Books, found: BlocksRead) -> Books:
        assert self.kept == before, "nobody else keeps these books"
        assert not found.outside, "every wei of this chain is the lane's"
        gone = [key for key, each in self.stored.items() if before.block < each.block <= found.last]
        for key in gone:
            del self.stored[key]
        self.stored.update({each.key: each for each in found.movements})
        self.kept = replace(after, version=before.version + 1)
        return self.kept


def ledger_of(chain: Any, now: float = 10_000.0) -> WalletLedger:
    gas: Any = SimpleNamespace(unsettled=lambda *_: 0, between=lambda *_: [])
    return WalletLedger(chain, gas, chain, FINALITY, lambda: now, lambda: BlockNumber(1), lambda: False)


amounts = st.lists(st.tuples(kinds, st.integers(0, 1000)), max_size=3)
steps = st.lists(st.one_of(amounts, st.tuples(st.just("reorg"), st.integers(1, FINALITY), amounts)), max_size=25)


@given(steps, st.integers(1, 5))
def test_no_reorg_above_final_depth_changes_what_is_stored_and_no_block_is_read_twice(
    life: list[Any], most: int
) -> None:
    chain = FakeChain(most=most)
    ledger = ledger_of(chain)
    chain.mine()
    for step in life:
        before = dict(chain.stored)
        if isinstance(step, tuple):
            chain.reorganise(step[1], *step[2])
        else:
            chain.mine(*step)
        ledger.catch_up(60.0)
        assert before.items() <= chain.stored.items(), "what is stored stays"
    books, final = ledger.catch_up(60.0)
    assert books.block == max(final, 0)
    assert books.account == chain.account(final)
    truth = [each for block in chain.blocks[: final + 1] for each in block]
    assert sorted(chain.stored) == sorted(each.key for each in truth)
    assert all(count == 1 for count in chain.asked.values())


@given(steps)
def test_up_to_the_head_the_books_differ_by_nothing_whatever_was_replaced(life: list[Any]) -> None:
    chain = FakeChain()
    ledger = ledger_of(chain)
    chain.mine()
    for step in life:
        if isinstance(step, tuple):
            chain.reorganise(step[1], *step[2])
        else:
            chain.mine(*step)
        assert ledger.view(60.0).difference == EVEN


def test_a_node_that_leaves_logs_out_is_asked_again_and_nothing_of_it_counts_as_proved() -> None:
    chain = FakeChain()
    chain.mine((Kind.DEPOSIT, 7))
    for _ in range(FINALITY + 1):
        chain.mine()
    chain.hides = True
    books, final = ledger_of(chain).catch_up(60.0)
    assert (books.block, books.proved, chain.stored) == (final, None, {})
    assert ledger_of(chain).view(60.0).difference == Balances(7, 0)
    chain.hides = False
    # An hour later it is read once more.
    books, _ = ledger_of(chain, 20_000.0).catch_up(60.0)
    chain.mine()
    books, final = ledger_of(chain, 20_000.0).catch_up(60.0)
    assert (books.proved, books.account, len(chain.stored)) == (final, Balances(7, 0), 1)


def test_while_the_node_does_not_answer_the_view_has_what_is_stored_and_says_why_it_is_not_compared() -> None:
    chain = FakeChain()
    chain.away = True
    with pytest.raises(RpcUnavailable):
        ledger_of(chain).view(60.0)
    chain.away = False
    chain.mine((Kind.DEPOSIT, 7))
    for _ in range(FINALITY + 1):
        chain.mine()
    before = ledger_of(chain).view(60.0)
    chain.away = True
    view = ledger_of(chain).view(60.0)
    assert (view.books, view.final, view.passage, view.difference) == (before.books, None, None, None)
    assert "no answer within 5 s" in str(view.native_unknown)
    chain.away = False
    assert ledger_of(chain).view(60.0).difference == EVEN


def test_ranges_are_cut_as_the_node_allows() -> None:
    chain = FakeChain(most=4)
    for number in range(30):
        chain.mine((Kind.REWARD, number))
    books, final = ledger_of(chain).catch_up(60.0)
    assert (books.block, books.account, len(chain.stored)) == (final, chain.account(final), final)


def test_a_node_that_refuses_even_one_block_is_an_error_and_moves_nothing() -> None:
    chain = FakeChain()
    chain.mine((Kind.DEPOSIT, 7))
    for _ in range(FINALITY + 1):
        chain.mine()
    chain.most = 0
    with pytest.raises((RpcError, RpcUnavailable)):
        ledger_of(chain).catch_up(60.0)
    assert chain.stored == {}
    assert chain.kept is not None
    assert chain.kept.block == 0
