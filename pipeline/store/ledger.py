"""Collection `movements`: what the hub moved for the scheduler's wallet, each event once; and how far it was read.

    movements   _id = <block hash>:<log index>          what others got by the wallet's tasks is here too (`owner`)
                _id = outside:<book>:<block>            native token that came or went without the lane
    cursors     _id = ledger:<chain>:<hub>:<wallet>     the books (`pipeline.domain.ledger`), under a version

Only final blocks are stored. A range is replaced as a whole and then the books move under the version that they were
read with, so that two processes may do the same at a time, and a crash makes the next one do it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import ASCENDING, IndexModel, ReplaceOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from pipeline.domain.ledger import Books, Mark, Outside
from pipeline.domain.statement import By
from protocol.poco.money import Balances, Kind, Movement
from protocol.types import ZERO_HASH, BlockHash, BlockNumber, Contract, Nonce, TaskId, TxHash, Wallet, Wei

INDEXES = [
    IndexModel([("book", ASCENDING), ("block", ASCENDING)], name="by_block"),
    IndexModel([("book", ASCENDING), ("at", ASCENDING)], name="by_time"),
]
#: `kind` of native token that came or went without the lane.
_OUTSIDE = "outside"
#: What else tells two lines of a list apart, beside owner and kind.
_KEYS: Mapping[By, Mapping[str, Any]] = {
    By.KIND: {},
    By.WORKER: {},
    By.TASK: {"task": "$task"},
    By.DAY: {"day": {"$floor": {"$divide": ["$at", 86_400]}}},
}


def ensure_indexes(db: Database[dict[str, Any]]) -> None:
    """Create the indexes."""
    db["movements"].create_indexes(INDEXES)


class Movements:
    """Queries on `movements`, for one wallet and one hub."""

    def __init__(self, db: Database[dict[str, Any]], chain_id: int, hub: Contract, wallet: Wallet) -> None:
        self._rows: Collection[dict[str, Any]] = db["movements"]
        self._cursors: Collection[dict[str, Any]] = db["cursors"]
        self._book = f"{chain_id}:{hub}:{wallet}"
        self._cursor = f"ledger:{self._book}"
        self._wallet = wallet

    def books(self) -> Books | None:
        """How far it was read; None before the first time."""
        row = self._cursors.find_one({"_id": self._cursor})
        return None if row is None else _books(row)

    def begin(self, books: Books) -> Books:
        """Open the books, unless another process did; returns those that are stored."""
        try:
            self._cursors.insert_one({"_id": self._cursor, **_document(books)})
        except DuplicateKeyError:
            return self.books() or books
        return books

    def replace_range(self, first: BlockNumber, last: BlockNumber, found: Sequence[Movement]) -> None:
        """Have exactly these movements for blocks first … last."""
        within = {"book": self._book, "block": {"$gte": first, "$lte": last}, "kind": {"$ne": _OUTSIDE}}
        self._rows.delete_many({**within, "_id": {"$nin": [each.key for each in found]}})
        if found:
            writes = [ReplaceOne({"_id": each.key}, self._row(each), upsert=True) for each in found]
            self._rows.bulk_write(writes, ordered=False)

    def put_outside(self, after: BlockNumber, found: Sequence[Outside], at: float) -> None:
        """Note what came or went without the lane above block `after`, in place of what was noted there. `at`: Unix
        seconds.
        """
        self._rows.delete_many({"book": self._book, "kind": _OUTSIDE, "after": {"$gte": after}})
        for each in found:
            row = {
                "book": self._book,
                "kind": _OUTSIDE,
                "after": each.after,
                "block": each.until,
                # Wei is kept as text: it outgrows the 64-bit integers of BSON.
                "wei": str(each.wei),
                "foreign": each.foreign,
                "transactions": list(each.transactions),
                "explained": each.explained,
                "at": at,
            }
            self._rows.replace_one({"_id": f"{_OUTSIDE}:{self._book}:{each.after}"}, row, upsert=True)

    def move(self, before: Books, after: Books) -> Books:
        """Store the books after a step; those of another process, if it was faster."""
        row = _document(after) | {"version": before.version + 1}
        mine = {"_id": self._cursor, "version": before.version}
        if self._cursors.replace_one(mine, row).matched_count:
            return _books(row)
        return self.books() or before

    def outside(self) -> list[Outside]:
        """All native token that came or went without the lane, oldest first."""
        rows = self._rows.find({"book": self._book, "kind": _OUTSIDE}).sort("block", ASCENDING)
        return [
            Outside(
                BlockNumber(row["after"]),
                BlockNumber(row["block"]),
                int(row["wei"]),
                int(row["foreign"]),
                tuple(row["transactions"]),
                bool(row["explained"]),
            )
            for row in rows
        ]

    def summed(self, by: By, moment: float, up_to: BlockNumber) -> list[Movement]:
        """Movements of blocks from Unix time `moment` to the block `up_to`: those that a list by `by` has on one line
        are one, with the sum of their amounts and the time of the newest.
        """
        wanted = {"book": self._book, "at": {"$gte": moment}, "block": {"$lte": up_to}, "kind": {"$ne": _OUTSIDE}}
        key = {"owner": "$owner", "kind": "$kind", **_KEYS[by]}
        # Decimal128 is exact to 34 digits; a sum of integers beyond 64 bits would become a float.
        amount = {"$sum": {"$toDecimal": "$amount"}}
        sums = {"$group": {"_id": key, "amount": amount, "at": {"$max": "$at"}, "newest": {"$max": "$block"}}}
        rows = self._rows.aggregate([{"$match": wanted}, sums])
        return [_sum(number, row) for number, row in enumerate(rows)]

    def withdrawn(self, after: BlockNumber, up_to: BlockNumber) -> int:
        """nRLC that the wallet withdrew in blocks above `after`, up to `up_to`."""
        wanted = {
            "book": self._book,
            "block": {"$gt": after, "$lte": up_to},
            "kind": str(Kind.WITHDRAWAL),
            "owner": self._wallet,
        }
        return sum(int(row["amount"]) for row in self._rows.find(wanted, {"amount": 1}))

    def _row(self, each: Movement) -> dict[str, Any]:
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


def _sum(number: int, row: Mapping[str, Any]) -> Movement:
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
        "reread_at": books.reread_at,
        "version": books.version,
    }


def _books(row: Mapping[str, Any]) -> Books:
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
        reread_at=float(row["reread_at"]),
        version=int(row["version"]),
    )


def _pair(account: Balances | None) -> list[int] | None:
    return None if account is None else [account.stake, account.locked]


def _mark_document(mark: Mark | None) -> dict[str, Any] | None:
    # Wei is kept as text: it outgrows the 64-bit integers of BSON.
    return None if mark is None else {"block": mark.block, "balance": str(mark.balance), "count": mark.count}


def _mark(row: Mapping[str, Any] | None) -> Mark | None:
    return None if row is None else Mark(BlockNumber(row["block"]), Wei(int(row["balance"])), Nonce(row["count"]))
