"""Collection `deals`: a stub as soon as the notice is seen, the whole deal once it is read from the chain.

notice in a block ──► new ──ingest──► ready ──reorg──► orphaned ──notice again──► new
                      │ ▲
                      ▼ └── read again later (pipeline.store.quarantine)
                   unreadable                ready, orphaned ──kept long enough──► over ──► deleted

While a deal is `new`, one process at a time stores its tasks, in pieces: it has a lease with a fence, a number that
grows with every lease, and each piece is noted only under the fence it was begun with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.audit.views import WaitingDeal
from pipeline.domain.records import CLOCKS_APART, DealRecord
from pipeline.store.documents import SCHEMA, Documents, Row
from pipeline.store.quarantine import Quarantine, Reader
from protocol.types import BlockHash, BlockNumber, DealId, NRlc

NEW = "new"
READY = "ready"
ORPHANED = "orphaned"
UNREADABLE = "unreadable"
#: Being deleted (`pipeline.store.ended`).
OVER = "over"

#: Seconds for which one process leases a deal: a piece takes less than one; a crash delays the rest by as much.
LEASE_SECONDS = 15.0
#: Deals waiting for their next piece that are read to find the one with the fewest tasks stored.
_LOOKED_AT = 200

DEALS = Documents(DealRecord, names={"deal_id": "_id", "matched_block": "block"}, text=("worker_stake",))
INDEXES = [
    IndexModel([("block", ASCENDING)], name="new", partialFilterExpression={"state": NEW}),
    IndexModel([("block", ASCENDING)], name="orphaned", partialFilterExpression={"state": ORPHANED}),
    IndexModel([("block", ASCENDING)], name="by_block"),
    IndexModel([("block", DESCENDING), ("_id", DESCENDING)], name="newest"),
]


@dataclass(frozen=True, slots=True)
class StoredDeal:
    """A deal as it is stored. `why`: of one that cannot be used; `record`: None until it was read from the chain."""

    deal_id: DealId
    state: str
    block: BlockNumber
    why: str | None
    record: DealRecord | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to store the tasks of one deal."""

    deal: DealRecord
    fence: int
    #: Tasks stored before, from the first on.
    stored: int
    #: Some of its tasks were stored already: the deal came back after a reorg, or a crash cut a piece off.
    again: bool = False


class Deals:
    """Queries on `deals`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["deals"]
        self._quarantine = Quarantine(db)
        self.reader = Reader(self._rows, DEALS, self._quarantine)

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def least_stake(self, newest: int) -> NRlc | None:
        """nRLC that a replicate of the `newest` deals locks at least: 0 if one has trust 1; None without deals."""
        rows = self._rows.find({"state": READY}, {"trust": 1, "worker_stake": 1}).sort("block", DESCENDING)
        found = [_least(row) for row in rows.limit(newest)]
        stakes = [stake for stake in found if stake is not None]
        return NRlc(min(stakes)) if stakes else None

    def first_block(self) -> BlockNumber | None:
        """Block of the deal that was matched first; None without deals."""
        row = self._rows.find_one({"block": {"$gt": 0}}, {"block": 1}, sort=[("block", ASCENDING)])
        return None if row is None else BlockNumber(int(row["block"]))

    def noticed(self, notices: Sequence[tuple[DealId, BlockNumber, BlockHash]]) -> None:
        """Remember deals to ingest; one that is known from the same block stays as it is."""
        writes = []
        for deal_id, block, block_hash in notices:
            known = {
                "$and": [{"$eq": ["$block_hash", block_hash]}, {"$in": ["$state", [NEW, READY, UNREADABLE, OVER]]}]
            }
            fresh = {
                "state": {"$cond": [known, "$state", NEW]},
                "stored": {"$cond": [known, {"$ifNull": ["$stored", 0]}, 0]},
                "lease_until": {"$cond": [known, {"$ifNull": ["$lease_until", 0.0]}, 0.0]},
                # In another block it starts at another time: it is read again.
                "read": {"$cond": [known, {"$ifNull": ["$read", False]}, False]},
                # A process that stores the tasks of the deal in another block stores no more of them.
                "fence": {"$add": [{"$ifNull": ["$fence", 0]}, {"$cond": [known, 0, 1]}]},
                "block": block,
                "block_hash": block_hash,
            }
            writes.append(UpdateOne({"_id": deal_id}, [{"$set": fresh}], upsert=True))
        if writes:
            self._rows.bulk_write(writes, ordered=False)

    def deals_to_ingest(self, limit: int, now: float = float("inf")) -> list[DealId]:
        """Deals noticed, not yet read from the chain and not leased, oldest first."""
        rows = self._rows.find({**_free(now), "read": {"$ne": True}}, {"_id": 1}).sort("block", ASCENDING).limit(limit)
        return [DealId(row["_id"]) for row in rows]

    def match_blocks(self, deal_ids: Iterable[DealId]) -> dict[DealId, BlockNumber]:
        """The block in which each of these deals was matched; only deals that are not ingested yet."""
        rows = self._rows.find({"_id": {"$in": list(deal_ids)}, "state": NEW}, {"block": 1})
        return {DealId(row["_id"]): BlockNumber(row["block"]) for row in rows}

    def any_waiting(self) -> bool:
        """Whether any deal is not ingested yet."""
        # The block is named so that the partial index serves.
        return self._rows.find_one({"state": NEW, "block": {"$gte": 0}}, {"_id": 1}) is not None

    def waiting(self, limit: int) -> list[WaitingDeal]:
        """Deals noticed and not ingested yet, those matched first first; at most `limit`."""
        # The block is named so that the partial index serves.
        rows = self._rows.find({"state": NEW, "block": {"$gte": 0}}, {"block": 1, "stored": 1})
        return [
            WaitingDeal(DealId(row["_id"]), BlockNumber(row["block"]), int(row.get("stored") or 0))
            for row in rows.sort("block", ASCENDING).limit(limit)
        ]

    def ready(self, deal_ids: Iterable[DealId]) -> list[DealRecord]:
        """Which of these deals are ingested, in no order."""
        return self.reader.each(self._rows.find({"_id": {"$in": list(deal_ids)}, "state": READY}))

    def read_again(self, deal_ids: Iterable[DealId]) -> None:
        """Have ingested deals read from the chain again, and those of their tasks stored that are missing."""
        anew = {"state": NEW, "read": False, "stored": 0, "again": True, "lease_until": 0.0}
        self._rows.update_many({"_id": {"$in": list(deal_ids)}, "state": READY}, {"$set": anew, "$inc": {"fence": 1}})

    # -- storing their tasks --------------------------------------------------------------------------------------

    def lease_and_store(self, deal: DealRecord, now: float) -> Lease | None:
        """Store a deal read from the chain and lease it. None: it is ingested already, or another process has the
        lease.
        """
        body = _body(deal)
        return self._lease({"_id": deal.deal_id, "block": deal.matched_block, **_free(now)}, body, now, deal)

    def store_for_later(self, deal: DealRecord) -> None:
        """Store a deal read from the chain without ingesting it; `lease_next` finds it later."""
        self._rows.update_one(
            {"_id": deal.deal_id, "block": deal.matched_block, "state": NEW, "read": {"$ne": True}},
            {"$set": _body(deal), "$max": {"schema": SCHEMA}},
        )

    def lease_next(self, now: float) -> Lease | None:
        """Lease a deal whose tasks are not all stored yet, the one with the fewest stored; None if there is no such
        deal.
        """
        wanted = {**_free(now), "read": True, "block": {"$gte": 0}}
        rows = list(self._rows.find(wanted, {"stored": 1}).limit(_LOOKED_AT))
        for row in sorted(rows, key=lambda item: int(item.get("stored") or 0)):
            lease = self._lease({"_id": row["_id"], **_free(now)}, {}, now, None)
            if lease is not None:
                return lease
        return None

    def _lease(self, wanted: dict[str, Any], body: dict[str, Any], now: float, deal: DealRecord | None) -> Lease | None:
        """Take the lease of the deal that fits the query; None if none does, or it cannot be read."""
        row = self._rows.find_one_and_update(
            wanted,
            {
                "$set": {**body, "lease_until": now + LEASE_SECONDS},
                "$max": {"schema": SCHEMA} if body else {},
                "$inc": {"fence": 1},
            },
            return_document=ReturnDocument.AFTER,
        )
        read = deal if deal is not None or row is None else next(iter(self.reader.each([row])), None)
        if row is None or read is None:
            return None
        return Lease(read, row["fence"], int(row.get("stored") or 0), bool(row.get("again")))

    def progress(self, lease: Lease, stored: int, until: float, *, again: bool) -> bool:
        """Store how many tasks are stored, and extend the lease to `until`. False: another process has the lease by
        now.
        """
        result = self._rows.update_one(
            {"_id": lease.deal.deal_id, "fence": lease.fence, "state": NEW},
            {"$set": {"stored": stored, "again": again, "lease_until": until}},
        )
        return result.matched_count == 1

    def mark_ingested(self, lease: Lease) -> bool:
        """Record that the deal and all its tasks are stored. False: another process has the lease by now."""
        result = self._rows.update_one(
            {"_id": lease.deal.deal_id, "fence": lease.fence, "state": NEW},
            {"$set": {"state": READY, "stored": lease.deal.bot_size, "again": False}},
        )
        return result.matched_count == 1

    def defer(self, deal_id: DealId, until: float) -> None:
        """Do not try a deal that cannot be read now again before `until` (Unix seconds)."""
        self._rows.update_one({"_id": deal_id, **_free(until)}, {"$set": {"lease_until": until}})

    def quarantine(self, deal_id: DealId, why: str) -> None:
        """Quarantine a deal that this release cannot serve; it is read again later."""
        self._rows.update_one({"_id": deal_id, "state": NEW}, {"$set": {"state": UNREADABLE, "why": why}})
        self._quarantine.add(self._rows.name, [(deal_id, why)])

    def reread(self, deal_id: DealId) -> None:
        """Have a quarantined deal, or its stored row, read again."""
        result = self._rows.update_one({"_id": deal_id, "state": UNREADABLE}, {"$set": {"state": NEW}})
        row = self._rows.find_one({"_id": deal_id, "start_time": {"$exists": True}})
        if result.matched_count or row is None or self.reader.each([row]):
            self._quarantine.release(self._rows.name, deal_id)

    # -- reorgs and audits ----------------------------------------------------------------------------------------

    def orphan_above(self, block: BlockNumber) -> list[DealId]:
        """Mark deals matched above `block` as gone from the chain; returns them, those marked before too.

        A caller that gets the same deals twice repeats what a crash may have cut off.
        """
        rows = self._rows.find({"block": {"$gt": block}}, {"_id": 1})
        deal_ids = [DealId(row["_id"]) for row in rows]
        self._rows.update_many({"_id": {"$in": deal_ids}, "block": {"$gt": block}}, {"$set": {"state": ORPHANED}})
        return deal_ids

    def deals_between(self, first: BlockNumber, last: BlockNumber) -> list[tuple[DealId, BlockNumber, BlockHash]]:
        """Deals matched in blocks first … last and not orphaned."""
        rows = self._rows.find(
            {"block": {"$gte": first, "$lte": last}, "state": {"$ne": ORPHANED}}, {"block": 1, "block_hash": 1}
        )
        return [(DealId(row["_id"]), BlockNumber(row["block"]), BlockHash(row["block_hash"])) for row in rows]

    def stored_at(self, places: Sequence[tuple[DealId, BlockNumber, BlockHash]]) -> list[DealId]:
        """Which of these deals are stored as matched in the very block that is given for them."""
        return [DealId(row["_id"]) for row in self._rows.find(_any_of(places), {"_id": 1})] if places else []

    def orphan(self, places: Sequence[tuple[DealId, BlockNumber, BlockHash]]) -> None:
        """Mark deals as not of the present chain, each only if it is stored as matched in just that block."""
        if places:
            self._rows.update_many(_any_of(places), {"$set": {"state": ORPHANED}})

    def orphaned_among(self, deal_ids: Iterable[DealId]) -> list[DealId]:
        """Which of these deals a reorg removed from the chain."""
        rows = self._rows.find({"_id": {"$in": list(deal_ids)}, "state": ORPHANED}, {"_id": 1})
        return [DealId(row["_id"]) for row in rows]

    # -- reading --------------------------------------------------------------------------------------------------

    def counts(self) -> tuple[int, int]:
        """(about how many deals are stored, orphaned ones too; how many are not ingested yet), for `sluice chain
        status`.
        """
        # The block is named so that the partial index serves.
        waiting = self._rows.count_documents({"state": NEW, "block": {"$gte": 0}})
        return self._rows.estimated_document_count(), waiting

    def get_deal(self, deal_id: DealId) -> DealRecord | None:
        """One deal, if it was read from the chain; else None. Raises InQuarantine."""
        return self.reader.one(self._rows.find_one({"_id": deal_id, "start_time": {"$exists": True}}))

    def newest(self, limit: int, *, before: tuple[BlockNumber, str] | None = None) -> list[StoredDeal]:
        """Deals as they are stored, those matched last first; `before`: only those behind this block and id in that
        order.
        """
        if before is None:
            return self._page({"block": {"$gte": 0}}, limit)
        block, deal_id = before
        rest = self._page({"block": block, "_id": {"$lt": deal_id}}, limit)
        left = limit - len(rest)
        return rest + (self._page({"block": {"$gte": 0, "$lt": block}}, left) if left else [])

    def stored(self, deal_id: DealId) -> StoredDeal | None:
        """One deal as it is stored, whatever its state; None if it was never noticed."""
        row = self._rows.find_one({"_id": deal_id})
        return None if row is None else self._stored(row)

    def ids_starting(self, prefix: str, limit: int) -> list[DealId]:
        """Ids of deals that begin with `prefix` (`0x` and hex digits), so that people need not write all 64."""
        found = self._rows.find({"_id": {"$gte": prefix, "$lt": prefix + "g"}}, {"_id": 1}).limit(limit)
        return [DealId(row["_id"]) for row in found]

    def _page(self, query: dict[str, Any], limit: int) -> list[StoredDeal]:
        """Deals that fit the query, newest first."""
        order = [("block", DESCENDING), ("_id", DESCENDING)]
        return [self._stored(row) for row in self._rows.find(query).sort(order).limit(limit)]

    def _stored(self, row: Row) -> StoredDeal:
        """A row as a deal with its state; without its terms if they are not stored or cannot be read."""
        read = next(iter(self.reader.each([row])), None) if "start_time" in row else None
        block, why = row.get("block"), row.get("why")
        return StoredDeal(
            DealId(str(row["_id"])),
            str(row.get("state")),
            BlockNumber(block if isinstance(block, int) else 0),
            None if why is None else str(why),
            read,
        )

    def count(self) -> int:
        """About how many deals are stored that were not orphaned."""
        # The block is named so that the partial index serves.
        orphaned = self._rows.count_documents({"state": ORPHANED, "block": {"$gte": 0}})
        return self._rows.estimated_document_count() - orphaned

    def count_since(self, block: BlockNumber) -> int:
        """Deals matched in this block or a later one and not orphaned."""
        return self._rows.count_documents({"block": {"$gte": block}, "state": {"$ne": ORPHANED}})

    def load_deals(self, deal_ids: Iterable[DealId]) -> list[DealRecord]:
        """The stored deals of these ids that were read from the chain, in no order."""
        return self.reader.each(self._rows.find({"_id": {"$in": list(deal_ids)}, "start_time": {"$exists": True}}))


def _free(now: float) -> dict[str, Any]:
    """The query for new deals whose lease nobody holds. One that ends later than any that is taken now is of a clock
    that was wrong.
    """
    ends = [{"$not": {"$gt": now}}, {"$gt": now + LEASE_SECONDS + CLOCKS_APART}]
    return {"state": NEW, "$or": [{"lease_until": end} for end in ends]}


def _body(deal: DealRecord) -> dict[str, Any]:
    """A deal's terms as fields of its row."""
    body = DEALS.to_document(deal)
    for key in ("_id", "schema"):
        body.pop(key)
    return body | {"read": True}


def _least(row: Row) -> int | None:
    """The stake that a vote in the deal locks; None if the row does not have it."""
    try:
        return 0 if row["trust"] <= 1 else int(row["worker_stake"])
    except (KeyError, TypeError, ValueError):
        return None


def _any_of(places: Sequence[tuple[DealId, BlockNumber, BlockHash]]) -> dict[str, Any]:
    """The query for deals, each as matched in one block."""
    return {
        "$or": [{"_id": deal_id, "block": block, "block_hash": block_hash} for deal_id, block, block_hash in places]
    }
