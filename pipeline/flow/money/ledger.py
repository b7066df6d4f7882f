"""Keeping the books of the scheduler's wallet: read what the hub moved, store it once it is final, prove the sums.

catch_up   movements of final blocks, in ranges as large as the node takes ─► stored ─► equal to the hub's account?
view       the same, and what is above final depth, read anew each time, up to the head

Both callers do it: the clock once a minute (`pipeline.flow.cleanup.tidy`), and the operator's request for the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from chain.contracts.hub import Hub
from chain.lane.model.intent import LaneId
from chain.lane.model.policy import LanePolicy
from chain.rpc.answers import Known, decode_reply
from chain.watch.escrow import EscrowReader, Holdings, Passage
from chain.watch.ranges import MOST, RangeSize
from config.settings import Settings
from pipeline.domain.money.ledger import Books, Mark, Outside, outside
from pipeline.flow.money.outside import locate
from pipeline.store.client import Store, database
from pipeline.store.money.gas import GasBook
from pipeline.store.money.ledger import BlocksRead, Movements
from protocol.errors import RpcError, RpcUnavailable
from protocol.poco.money import EVEN, Balances, Kind, Movement
from protocol.types import ZERO_ADDRESS, BlockNumber, Wallet

log = structlog.get_logger(__name__)

#: Times that a range is asked for at most while the node refuses or its answers do not fit.
_TRIES = 12


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The books as far as they could be read now. `passage`: None while there are final blocks still to be read, or the
    node does not answer.
    """

    wallet: Wallet
    books: Books
    #: None: the node does not tell.
    final: BlockNumber | None
    passage: Passage | None
    #: Native token that came or went without the lane since the last mark; None: nothing, or `native_unknown`.
    outside: Outside | None = None
    #: Why it cannot be told whether the native balance adds up at the head; None if it can.
    native_unknown: str | None = None

    @property
    def difference(self) -> Balances | None:
        """How much more the hub's account at the head has than the books; None: not known."""
        if self.passage is None or self.passage.holdings is None or self.books.opening is None:
            return None
        own = [each for each in self.passage.movements if each.owner == self.wallet]
        return self.passage.holdings.account.minus(self.books.account.after(own))


@dataclass(frozen=True, slots=True)
class WalletLedger:
    """Keeps the books of one wallet in one hub. `clock`: Unix seconds; `earliest`: block of the first thing that is
    known of the wallet, None: nothing is.
    """

    movements: Movements
    gas: GasBook
    reader: EscrowReader
    finality: int
    clock: Callable[[], float]
    earliest: Callable[[], BlockNumber | None]
    #: Whether RLC is the native token of this hub. Raises RpcUnavailable.
    native_hub: Callable[[], bool]

    @classmethod
    def of(
        cls, settings: Settings, store: Store, hub: Hub, wallet: Wallet, clock: Callable[[], float] = time.time
    ) -> WalletLedger:
        """The ledger of the scheduler's wallet."""
        db = database(settings)
        gas = GasBook(db, LaneId(settings.chain_id, wallet))

        def earliest() -> BlockNumber | None:
            """The first block of which anything about the wallet is stored: a deal, or a transaction of the lane."""
            known = [block for block in (store.deals.first_block(), gas.first_block()) if block is not None]
            return min(known, default=None)

        return cls(
            movements=Movements(db, settings.chain_id, hub.address, wallet),
            gas=gas,
            reader=EscrowReader(hub.rpc, hub.address, wallet),
            finality=LanePolicy.of(settings).finality,
            clock=clock,
            earliest=earliest,
            native_hub=lambda: str(hub.token()) == ZERO_ADDRESS,
        )

    def catch_up(self, seconds: float) -> tuple[Books, BlockNumber]:
        """Store what has become final, for about so many seconds; returns the books, and the final block.

        Raises RpcError, RpcUnavailable, PyMongoError; what was stored before stays.
        """
        until = time.monotonic() + seconds
        final = BlockNumber(max(0, self._head() - self.finality))
        books = self.movements.books() or self._begin(final)
        size, tries = RangeSize(blocks=MOST), 0
        while books.block < final:
            first = BlockNumber(books.block + 1)
            last = BlockNumber(min(books.block + size.blocks, final))
            try:
                passage = self.reader.passage(first, last)
            except (RpcError, RpcUnavailable) as error:
                tries += 1
                if size.least or tries == _TRIES:
                    raise
                size = size.failed(str(error))
                continue
            size = size.succeeded()
            moved, found = books.with_movements(last, self._own(passage.movements)), BlocksRead(last, passage.movements)
            if last == final and passage.holdings is not None:
                moved, noted = self._proved(books, moved, passage)
                found = replace(found, outside=noted, at=self.clock())
            books = self.movements.store(books, moved, found)
            if time.monotonic() >= until:
                break
        return books, final

    def view(self, seconds: float) -> LedgerView:
        """Catch up for about so many seconds, then read the movements above final depth up to the head. While the node
        does not answer, the view has what is stored.

        Raises PyMongoError; RpcError and RpcUnavailable only as long as there are no books.
        """
        try:
            return self._view(seconds)
        except (RpcError, RpcUnavailable) as error:
            books = self.movements.books()
            if books is None:
                raise
            log.warning("The ledger cannot be compared with the chain.", action="ledger_unknown", why=str(error))
            return LedgerView(self.reader.wallet, books, None, None, native_unknown=str(error))

    def _view(self, seconds: float) -> LedgerView:
        """`view`, by a node that answers. Raises RpcError, RpcUnavailable, PyMongoError."""
        books, final = self.catch_up(seconds)
        wallet = self.reader.wallet
        if books.block < final:
            return LedgerView(wallet, books, final, None)
        head = BlockNumber(max(self._head(), books.block))
        if head == books.block:
            # A chain that has just begun: nothing is above final depth.
            passage = replace(self.reader.passage(head, head), movements=())
        else:
            passage = self.reader.passage(BlockNumber(books.block + 1), head)
        view = LedgerView(wallet, books, final, passage)
        if passage.holdings is None or books.native is None:
            return replace(view, native_unknown="the node does not tell the wallet's balance")
        return self._with_native(view, books.native, passage, passage.holdings)

    def _with_native(self, view: LedgerView, before: Mark, passage: Passage, holdings: Holdings) -> LedgerView:
        """The view, with changes of the native balance that are not the lane's, or why they are not known."""
        now = Mark(passage.last.number, holdings.balance, holdings.count)
        waiting = self.gas.unsettled(before.count, now.count)
        if waiting:
            why = f"the lane does not know yet what {waiting} of its transactions cost"
            return replace(view, native_unknown=why)
        returned = self._returned(before, view.books, passage) if self.native_hub() else 0
        found = outside(before, now, self.gas.between(before.count, now.count), returned)
        return replace(view, outside=found)

    def _begin(self, final: BlockNumber) -> Books:
        """Books that begin with the first thing that is known of the wallet, or with what is not final yet."""
        earliest = self.earliest()
        first = BlockNumber(final + 1 if earliest is None else max(1, min(earliest, final + 1)))
        before, now = self.reader.holdings([BlockNumber(first - 1), final])
        if now is None:
            raise RpcUnavailable(what=self.reader.rpc.name, why=f"it does not show the account at block {final}")
        opening = None if before is None else before.account
        known, block = (now, final) if before is None else (before, BlockNumber(first - 1))
        mark = Mark(block, known.balance, known.count)
        start = EVEN if opening is None else opening
        books = Books(first, opening, BlockNumber(first - 1), start, native_opening=mark, native=mark)
        if first - 1 == final:
            books = books.checked(start, self.clock())
        log.info("The ledger begins.", action="ledger_begins", block=first, opening_known=opening is not None)
        return self.movements.begin(books)

    def _proved(self, stored: Books, books: Books, passage: Passage) -> tuple[Books, Sequence[Outside]]:
        """The books compared with what the wallet has after their last block (by `passage`), and native token that came
        or went without the lane. `stored`: the books before that passage.
        """
        holdings = passage.holdings
        assert holdings is not None
        proved = books.checked(holdings.account, self.clock())
        if proved.block < books.block:
            log.warning(
                "The movements in the hub do not add up; they are read again.",
                action="ledger_reread",
                block=books.block,
                from_block=proved.block,
            )
            return proved, ()
        before, now = books.native, Mark(books.block, holdings.balance, holdings.count)
        if before is None or now.block <= before.block or self.gas.unsettled(before.count, now.count):
            return proved, ()
        costs = self.gas.between(before.count, now.count)
        if self.native_hub():
            found = outside(before, now, costs, self._returned(before, stored, passage))
            noted = [] if found is None else [found]
        else:
            noted = locate(self.reader, self.gas, before, now)
        spent = books.native_spent + sum(cost.fee + cost.moved for cost in costs)
        count, wei = books.outside_count + len(noted), books.outside_wei + sum(each.wei for each in noted)
        return replace(proved, native=now, native_spent=spent, outside_count=count, outside_wei=wei), noted

    def _returned(self, before: Mark, stored: Books, passage: Passage) -> int:
        """nRLC that the wallet withdrew since `before`, the last mark of its native balance: by the stored movements up
        to `stored.block`, and by the passage above it.
        """
        above = [each for each in self._own(passage.movements) if each.block > before.block]
        of_passage = sum(each.amount for each in above if each.kind is Kind.WITHDRAWAL)
        return self.movements.withdrawn(before.block, stored.block) + of_passage

    def _own(self, movements: Sequence[Movement]) -> list[Movement]:
        """The movements of our own wallet."""
        return [each for each in movements if each.owner == self.reader.wallet]

    def _head(self) -> BlockNumber:
        """The node's newest block. Raises RpcUnavailable."""
        answer = decode_reply(self.reader.rpc.call("eth_blockNumber"), lambda text: BlockNumber(int(text, 16)))
        if isinstance(answer, Known):
            return answer.value
        raise RpcUnavailable(what=self.reader.rpc.name, why="it does not tell its head")
