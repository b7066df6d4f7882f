"""Collection `movements`: what the hub moved for the scheduler's wallet, each event once; and how far it was read.

    movements   _id = <block hash>:<log index>          what others got by the wallet's tasks is here too (`owner`)
                _id = outside:<book>:<block>            native token that came or went without the lane
                _id = sums:<book>:<day>:<owner>:<kind>  in place of those of a day that is not kept any more (`sum_up`)
    cursors     _id = ledger:<chain>:<hub>:<wallet>     the books (`pipeline.domain.money.ledger`), under a version

Only final blocks are stored. What a step read and the books that it leads to are one transaction, under the version
that the books were read with: of two processes that do the same at a time the slower one writes nothing, and a crash
leaves all to the next one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import Decimal128
from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from config.metrics import REWARDS
from pipeline.domain.money.ledger import Books, Mark, Outside
from pipeline.domain.money.statement import By
from pipeline.store.documents import over
from protocol.poco.money import Balances, Kind, Movement
from protocol.types import ZERO_HASH, BlockHash, BlockNumber, Contract, Nonce, TaskId, TxHash, Wallet, Wei

#: `kind` of native token that came or went without the lane.
_OUTSIDE = "outside"
#: Seconds of a day.
_DAY = 86_400
INDEXES = [
    IndexModel([("book", ASCENDING), ("block", ASCENDING)], name="by_block"),
    IndexModel([("book", ASCENDING), ("at", ASCENDING)], name="by_time"),
    IndexModel(
        [("book", ASCENDING), ("at", DESCENDING), ("block", DESCENDING)],
        name="outside",
        partialFilterExpression={"kind": _OUTSIDE},
    ),
    IndexModel(
        [("book", ASCENDING), ("differs", ASCENDING), ("block", ASCENDING)],
        name="differing",
        partialFilterExpression={"differs": True},
    ),
]
#: What else tells two lines of a list apart, beside owner and kind.
_KEYS: Mapping[By, Mapping[str, Any]] = {
    By.KIND: {},
    By.WORKER: {},
    By.TASK: {"task": "$task"},
    By.DAY: {"day": {"$floor": {"$divide": ["$at", _DAY]}}},
}


def ensure_indexes(db: Database[dict[str, Any]]) -> None:
    """Create the indexes."""
    db["movements"].create_indexes(INDEXES)


@dataclass(frozen=True, slots=True)
class BlocksRead:
    """What was read of a range of blocks up to `last`: movements, and native token that came or went without the lane
    since its last mark. `at`: when it was read, Unix seconds.
    """

    last: BlockNumber
    movements: Sequence[Movement]
    outside: Sequence[Outside] = ()
    at: float = 0.0


class Movements:
    """Queries on `movements`, for one wallet and one hub."""

    def __init__(self, db: Database[dict[str, Any]], chain_id: int, hub: Contract, wallet: Wallet) -> None:
        self._rows: Collection[dict[str, Any]] = db["movements"]
        self._cursors: Collection[dict[str, Any]] = db["cursors"]
        self._book = f"{chain_id}:{hub}:{wallet}"
        self._sums = f"sums:{self._book}"
        self._cursor = f"ledger:{self._book}"
        self._wallet = wallet

    def books(self) -> Books | None:
        """The books as they are stored; None before the first time."""
        row = self._cursors.find_one({"_id": self._cursor})
        return None if row is None else _books(row)

    def begin(self, books: Books) -> Books:
        """Open the books, unless another process did; returns those that are stored."""
        try:
            self._cursors.insert_one({"_id": self._cursor, **_document(books)})
        except DuplicateKeyError:
            return self.books() or books
        return books

    def store(self, before: Books, after: Books, found: BlocksRead) -> Books:
        """Replace what is stored of the blocks above `before.block` by `found`, and write the books `after` over
        `before`.

        One transaction; nothing is written if another process has written over `before` meanwhile. Returns the books
        that are stored now. Raises PyMongoError.
        """
        row = _document(after) | {"version": before.version + 1}

        def write(session: ClientSession) -> bool:
            """Body of the transaction; False if another process has written the books meanwhile."""
            mine = {"_id": self._cursor, "version": before.version}
            if not self._cursors.update_one(mine, over(row), session=session).matched_count:
                return False
            within = {"book": self._book, "block": {"$gt": before.block, "$lte": found.last}}
            self._rows.delete_many({**within, "kind": {"$ne": _OUTSIDE}}, session=session)
            rows = [self._row(each) for each in found.movements]
            rows += [self._outside_row(each, found.at) for each in found.outside]
            if rows:
                writes = [ReplaceOne({"_id": each["_id"]}, each, upsert=True) for each in rows]
                self._rows.bulk_write(writes, ordered=False, session=session)
            return True

        with self._rows.database.client.start_session() as session:
            won = session.with_transaction(write)
        if won:
            self._count_rewards(found.movements)
        return _books(row) if won else self.books() or before

    def _count_rewards(self, movements: Sequence[Movement]) -> None:
        """Add rewards to the metrics: of the processes that read the same blocks, the one that stored them counts."""
        for each in movements:
            if each.kind is Kind.REWARD:
                REWARDS.labels("scheduler" if each.owner == self._wallet else "machines").inc(each.amount)

    def outside(self, since: float, limit: int, until: float = math.inf) -> list[Outside]:
        """Native token that came or went without the lane, oldest first: the newest `limit` that were found since Unix
        time `since`, and before `until`.
        """
        wanted = {"book": self._book, "kind": _OUTSIDE, "at": {"$gte": since, "$lt": until}}
        rows = self._rows.find(wanted).sort([("at", DESCENDING), ("block", DESCENDING)]).limit(limit)
        return [_outside(row) for row in rows][::-1]

    def differing(self) -> list[Outside]:
        """Outflows and inflows that nothing explains, oldest first. Only the wallet's own key can cause one."""
        return [
            _outside(row) for row in self._rows.find({"book": self._book, "differs": True}).sort("block", ASCENDING)
        ]

    def differing_at(self, block: BlockNumber) -> Outside | None:
        """The unexplained difference (`differing`) whose range of blocks contains `block`; None: there is none."""
        row = self._rows.find_one(self._at(block))
        return None if row is None else _outside(row)

    def accept(self, block: BlockNumber, at: float) -> None:
        """Mark the difference around `block` as explained by the operator, so that `differing` leaves it out.

        `at`: Unix seconds.
        """
        self._rows.update_one(self._at(block), {"$set": {"differs": False, "accepted_at": at}})

    def _at(self, block: BlockNumber) -> dict[str, Any]:
        """The query for a difference within which a block is."""
        return {"book": self._book, "differs": True, "after": {"$lt": block}, "block": {"$gte": block}}

    def summed(self, by: By, moment: float, up_to: BlockNumber, until: float = math.inf) -> list[Movement]:
        """Sums of the movements whose blocks have times from `moment` to before `until` (Unix seconds), up to `up_to`.

        Each sum is a movement itself, with the time of the newest: one for each owner, kind and line of a list by `by`.
        """
        within = {"at": {"$gte": moment, "$lt": until}, "block": {"$lte": up_to}}
        wanted = {"book": {"$in": [self._book, self._sums]}, **within, "kind": {"$ne": _OUTSIDE}}
        key = {"owner": "$owner", "kind": "$kind", **_KEYS[by]}
        # Decimal128 is exact to 34 digits; a sum of integers beyond 64 bits would become a float.
        amount = {"$sum": {"$toDecimal": "$amount"}}
        sums = {"$group": {"_id": key, "amount": amount, "at": {"$max": "$at"}, "newest": {"$max": "$block"}}}
        rows = self._rows.aggregate([{"$match": wanted}, sums])
        return [_sum(number, row) for number, row in enumerate(rows)]

    def sum_up(self, before: float, up_to: BlockNumber, limit: int) -> int:
        """Put sums by day, owner and kind in the place of movements from before `before` (Unix seconds, a day's
        beginning) in blocks up to `up_to`, which are never read again; at most `limit` of the oldest. Native token from
        outside that differs in nothing goes: the books have its sum. Returns how many rows it took.

        One transaction: each movement is either there or in its sum, whatever is killed. Raises PyMongoError.
        """

        def write(session: ClientSession) -> int:
            """Body of the transaction: add the rows to their sums and delete them; returns how many."""
            wanted = {"book": self._book, "at": {"$lt": before}, "block": {"$lte": up_to}, "differs": {"$ne": True}}
            rows = list(self._rows.find(wanted, session=session).sort("at", ASCENDING).limit(limit))
            sums = [self._add(row) for row in rows if row["kind"] != _OUTSIDE]
            if sums:
                self._rows.bulk_write(sums, session=session)
            self._rows.delete_many({"_id": {"$in": [row["_id"] for row in rows]}}, session=session)
            return len(rows)

        with self._rows.database.client.start_session() as session:
            return session.with_transaction(write)

    def _add(self, row: Mapping[str, Any]) -> UpdateOne:
        """The update that adds a movement to the sum of its day, with the time and block of the newest."""
        owner, kind, day = row["owner"], row["kind"], int(row["at"] // _DAY)
        return UpdateOne(
            {"_id": f"{self._sums}:{day}:{owner}:{kind}"},
            {
                "$setOnInsert": {"book": self._sums, "owner": owner, "kind": kind, "task": None},
                "$inc": {"amount": Decimal128(str(row["amount"]))},
                "$max": {"at": row["at"], "block": row["block"]},
            },
            upsert=True,
        )

    def withdrawn(self, after: BlockNumber, up_to: BlockNumber) -> int:
        """nRLC that the wallet withdrew in blocks above `after`, up to `up_to`."""
        wanted = {
            "book": self._book,
            "block": {"$gt": after, "$lte": up_to},
            "kind": str(Kind.WITHDRAWAL),
            "owner": self._wallet,
        }
        return sum(int(row["amount"]) for row in self._rows.find(wanted, {"amount": 1}))

    def _outside_row(self, each: Outside, at: float) -> dict[str, Any]:
        """The row that stores a change of the native balance without the lane."""
        return {
            "_id": f"{_OUTSIDE}:{self._book}:{each.after}",
            "book": self._book,
            "kind": _OUTSIDE,
            "after": each.after,
            "block": each.until,
            # Wei is kept as text: it outgrows the 64-bit integers of BSON.
            "wei": str(each.wei),
            "foreign": each.foreign,
            "transactions": list(each.transactions),
            "explained": each.explained,
            "differs": each.differs,
            "at": at,
        }

    def _row(self, each: Movement) -> dict[str, Any]:
        """A movement of RLC as its row."""
        return {
            "_id": each.key,
            "book": self._book,
            "owner": each.owner,
            "kind": str(each.kind),
            "amount": each.amount,
            "task": each.task,
            "block": each.block,
            "block_hash": each.block_hash,
            "tx": each.tx_hash,
            "index": each.log_index,
            "at": each.at,
        }


def _outside(row: Mapping[str, Any]) -> Outside:
    """The change of the native balance without the lane that a stored row holds."""
    return Outside(
        BlockNumber(row["after"]),
        BlockNumber(row["block"]),
        int(row["wei"]),
        int(row["foreign"]),
        tuple(row["transactions"]),
        bool(row["explained"]),
        accepted="accepted_at" in row,
    )


def _sum(number: int, row: Mapping[str, Any]) -> Movement:
    """A sum of movements as one movement."""
    key = row["_id"]
    return Movement(
        owner=Wallet(key["owner"]),
        kind=Kind(key["kind"]),
        amount=int(row["amount"].to_decimal()),
        task=TaskId(key["task"]) if key.get("task") else None,
        block=BlockNumber(row["newest"]),
        block_hash=BlockHash(ZERO_HASH),
        tx_hash=TxHash(ZERO_HASH),
        log_index=number,
        at=int(row["at"]),
    )


def _document(books: Books) -> dict[str, Any]:
    """The document that stores the books."""
    return {
        "first": books.first,
        "opening": _pair(books.opening),
        "block": books.block,
        "account": _pair(books.account),
        "proved": books.proved,
        "proved_account": _pair(books.proved_account),
        "native_opening": _mark_document(books.native_opening),
        "native": _mark_document(books.native),
        "native_spent": str(books.native_spent),
        "outside_count": books.outside_count,
        "outside_wei": str(books.outside_wei),
        "reread_at": books.reread_at,
        "version": books.version,
    }


def _books(row: Mapping[str, Any]) -> Books:
    """The books in a stored document."""
    return Books(
        first=BlockNumber(row["first"]),
        opening=None if row["opening"] is None else Balances(*row["opening"]),
        block=BlockNumber(row["block"]),
        account=Balances(*row["account"]),
        proved=None if row["proved"] is None else BlockNumber(row["proved"]),
        proved_account=Balances(*row["proved_account"]),
        native_opening=_mark(row["native_opening"]),
        native=_mark(row["native"]),
        native_spent=int(row["native_spent"]),
        outside_count=int(row.get("outside_count", 0)),
        outside_wei=int(row.get("outside_wei", 0)),
        reread_at=float(row["reread_at"]),
        version=int(row["version"]),
    )


def _pair(account: Balances | None) -> list[int] | None:
    """Free and locked stake as a row holds them."""
    return None if account is None else [account.stake, account.locked]


def _mark_document(mark: Mark | None) -> dict[str, Any] | None:
    """A mark of the native balance as a part of the books' document."""
    # Wei is kept as text: it outgrows the 64-bit integers of BSON.
    return None if mark is None else {"block": mark.block, "balance": str(mark.balance), "count": mark.count}


def _mark(row: Mapping[str, Any] | None) -> Mark | None:
    """A mark of the native balance from its row."""
    return None if row is None else Mark(BlockNumber(row["block"]), Wei(int(row["balance"])), Nonce(row["count"]))
