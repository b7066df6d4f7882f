"""Collection `orders`: workerpool orders of this pool (`pipeline.domain.orders.records`), and the operator's hold.

_id <order hash>    one order; a row is stored before its order is sent anywhere
_id "held"          there while an operator has cancelled all offers
_id "market turn"   there while a run asks markets: who, until when, and whether another run wanted to

Every change is one conditional update. Two processes that sign at the same time choose the same `number`: the index
lets one of them in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from pipeline.domain.orders.records import OrderRecord, OrderStage, Withdrawal
from pipeline.domain.records import CLOCKS_APART
from pipeline.store.documents import Documents
from pipeline.store.quarantine import Quarantine, Reader
from protocol.types import BlockNumber, Hash32

DOCUMENTS = Documents(OrderRecord, names={"order_hash": "_id"})
_HELD = {"_id": "held"}
_TURN = {"_id": "market turn"}
_LIVE = {"stage": {"$in": [str(OrderStage.SIGNED), str(OrderStage.PUBLISHED)]}}

INDEXES = [
    IndexModel([("number", ASCENDING)], name="number", unique=True, partialFilterExpression={"number": {"$gt": 0}}),
    IndexModel([("stage", ASCENDING), ("withdrawn_at", ASCENDING)], name="by_stage"),
]


class Orders:
    """Queries on `orders`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["orders"]
        self.reader = Reader(self._rows, DOCUMENTS, Quarantine(db))

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    # -- reading --------------------------------------------------------------------------------------------------

    def not_ended(self) -> list[OrderRecord]:
        """Orders that have not ended, by number."""
        stages = [str(stage) for stage in OrderStage if stage is not OrderStage.ENDED]
        return self.reader.each(self._rows.find({"stage": {"$in": stages}}).sort("number", ASCENDING))

    def ended_since(self, moment: float) -> list[OrderRecord]:
        """Orders that ended and were withdrawn at `moment` (Unix seconds) or later."""
        query = {"stage": str(OrderStage.ENDED), "withdrawn_at": {"$gte": moment}}
        return self.reader.each(self._rows.find(query))

    def newest(self, limit: int) -> list[OrderRecord]:
        """The newest orders, ended ones too; the newest first."""
        return self.reader.each(self._rows.find({"number": {"$gt": 0}}).sort("number", DESCENDING).limit(limit))

    def highest_number(self) -> int:
        """The highest number of an order; 0 without one."""
        row = self._rows.find_one({"number": {"$gt": 0}}, {"number": 1}, sort=[("number", DESCENDING)])
        return 0 if row is None else int(row["number"])

    # -- an order's life ------------------------------------------------------------------------------------------

    def add(self, record: OrderRecord) -> bool:
        """Store a signed order. False: another process has signed one meanwhile."""
        try:
            self._rows.insert_one(DOCUMENTS.to_document(record))
        except DuplicateKeyError:
            return False
        return True

    def mark_shown(self, order_hash: Hash32) -> bool:
        """Note that the order is about to be sent to the market. False: it is not to be published any more."""
        query = {"_id": order_hash, "stage": str(OrderStage.SIGNED)}
        return self._rows.update_one(query, {"$set": {"shown": True, "listed": True}}).matched_count == 1

    def mark_published(self, order_hash: Hash32, now: float) -> None:
        """Note that the market lists the order, at `now` (Unix seconds). One that was withdrawn meanwhile is to be
        unpublished (again).
        """
        stage = {"$cond": [{"$eq": ["$stage", str(OrderStage.SIGNED)]}, str(OrderStage.PUBLISHED), "$stage"]}
        again = {"$cond": [{"$eq": ["$stage", str(OrderStage.ENDED)]}, str(OrderStage.WITHDRAWN), stage]}
        change = {"stage": again, "listed": True, "looked_at": now, **_ANSWERED}
        self._rows.update_one({"_id": order_hash}, [{"$set": change}])

    def mark_looked_at(self, order_hash: Hash32, now: float) -> None:
        """Note that the market said at `now` (Unix seconds) that it still has a published order."""
        query = {"_id": order_hash, "stage": str(OrderStage.PUBLISHED)}
        self._rows.update_one(query, {"$set": {"looked_at": now, **_ANSWERED}})

    def mark_missing(self, order_hash: Hash32) -> bool:
        """Note that the market lists a published order no longer, though the pool wants it to. False: it does not."""
        query = {"_id": order_hash, "stage": str(OrderStage.PUBLISHED)}
        change = {"stage": str(OrderStage.SIGNED), **_ANSWERED}
        return self._rows.update_one(query, {"$set": change}).modified_count == 1

    def withdraw(self, order_hash: Hash32, why: Withdrawal, now: float) -> bool:
        """Note that the order is not offered any more. False: it was withdrawn before, or has ended."""
        # A failure to publish it says nothing about how soon it can be unpublished.
        change = {"stage": str(OrderStage.WITHDRAWN), "why": str(why), "withdrawn_at": now, **_ANSWERED}
        return self._rows.update_one({"_id": order_hash, **_LIVE}, {"$set": change}).modified_count == 1

    def mark_unpublished(self, order_hash: Hash32) -> None:
        """Note that the market lists the order no longer."""
        self._rows.update_one({"_id": order_hash}, {"$set": {"listed": False, **_ANSWERED}})

    def end(self, order_hash: Hash32, now: float) -> None:
        """Note that nothing is left to do about the order."""
        change = [{"$set": {"stage": str(OrderStage.ENDED), "withdrawn_at": {"$ifNull": ["$withdrawn_at", now]}}}]
        self._rows.update_one({"_id": order_hash}, change)

    # -- what the chain and the market say ------------------------------------------------------------------------

    def store_consumed(self, order_hash: Hash32, consumed: int, spent_block: BlockNumber | None) -> None:
        """Store how much of the order is used or closed, and since which block all of it is."""
        self._rows.update_one({"_id": order_hash}, {"$set": {"consumed": consumed, "spent_block": spent_block}})

    def ask_again(self, order_hashes: Iterable[Hash32], says: str, at: float) -> None:
        """Ask the market about these orders again at `at` (Unix seconds), and not before. `says`: what it answered."""
        change = {"$set": {"says": says, "retry_at": at}, "$inc": {"tries": 1}}
        self._rows.update_many({"_id": {"$in": list(order_hashes)}}, change)

    def close_failed(self, order_hash: Hash32, tries: int) -> None:
        """Note that a try to close the order on chain failed; `tries`: how many had failed before."""
        self._rows.update_one({"_id": order_hash, "closes": tries}, {"$inc": {"closes": 1}})

    def forget_ended(self, before: float) -> int:
        """Delete orders that ended and were withdrawn or sold before `before` (Unix seconds); returns how many."""
        query = {"stage": str(OrderStage.ENDED), "withdrawn_at": {"$lt": before}}
        return self._rows.delete_many(query).deleted_count

    # -- whose turn it is to ask the market ------------------------------------------------------------------------

    def take_turn(self, holder: str, now: float, until: float) -> bool:
        """Let only the run `holder` send requests to markets, until it gives the turn back, at most until `until`.
        False: another run does, and learns at its end that one more wants to.
        """
        turn = {"holder": holder, "until": until, "wanted": False}
        # One that ends later than any that begins now was taken by a clock that was wrong.
        over = {"$or": [{"until": {"$lt": now}}, {"until": {"$gt": until + CLOCKS_APART}}]}
        try:
            self._rows.update_one({**_TURN, **over}, {"$set": turn}, upsert=True)
        except DuplicateKeyError:
            if self._rows.update_one(_TURN, {"$set": {"wanted": True}}).matched_count:
                return False
            # It was given back in this moment.
            return self.take_turn(holder, now, until)
        return True

    def give_turn_back(self, holder: str) -> bool:
        """Whether another run wanted the turn meanwhile."""
        row = self._rows.find_one_and_delete({**_TURN, "holder": holder})
        return row is not None and bool(row["wanted"])

    # -- the operator's hold --------------------------------------------------------------------------------------

    def held(self) -> bool:
        """Whether an operator has cancelled all offers."""
        return self._rows.find_one(_HELD) is not None

    def hold(self, now: float) -> bool:
        """Offer nothing until `release`; returns whether that is new."""
        return hold(self._rows, now)

    def release(self) -> bool:
        """Offer what the policy says again; whether it was held back before."""
        return self._rows.delete_one(_HELD).deleted_count == 1


def hold(rows: Collection[dict[str, Any]], now: float) -> bool:
    """Have nothing offered from these rows until `release`. `now`: Unix seconds. Whether that is new."""
    return rows.update_one(_HELD, {"$setOnInsert": {"since": now}}, upsert=True).upserted_id is not None


#: The market answered as wanted.
_ANSWERED = {"tries": 0, "says": "", "retry_at": 0.0}
