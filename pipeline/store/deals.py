"""Collection `deals`: a stub as soon as the notice is seen, the whole deal once it is read from the chain.

notice in a block ──► new ──ingest──► ready ──reorg──► orphaned ──notice again──► new
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.records import DealRecord
from protocol.types import BlockHash, BlockNumber, Contract, DealId, Hash32, NRlc, Timestamp, Wallet
from protocol.wire import Dataset

NEW = "new"
READY = "ready"
ORPHANED = "orphaned"
UNREADABLE = "unreadable"

INDEXES = [
    IndexModel([("block", ASCENDING)], name="new", partialFilterExpression={"state": NEW}),
    IndexModel([("block", ASCENDING)], name="by_block"),
]


class Deals:
    """Queries on `deals`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["deals"]

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def least_stake(self, newest: int) -> NRlc | None:
        """nRLC that a replicate of the `newest` deals locks at least: 0 if one has trust 1; None without deals."""
        rows = self._rows.find({"state": READY}, {"trust": 1, "worker_stake": 1}).sort("block", DESCENDING)
        stakes = [0 if row["trust"] <= 1 else int(row["worker_stake"]) for row in rows.limit(newest)]
        return NRlc(min(stakes)) if stakes else None

    def noticed(self, notices: Sequence[tuple[DealId, BlockNumber, BlockHash]]) -> None:
        """Remember deals to ingest; one that is known from the same block stays as it is."""
        writes = [
            UpdateOne(
                {"_id": deal_id},
                [
                    {
                        "$set": {
                            "state": {
                                "$cond": [
                                    {
                                        "$and": [
                                            {"$eq": ["$block_hash", block_hash]},
                                            {"$in": ["$state", [READY, UNREADABLE]]},
                                        ]
                                    },
                                    "$state",
                                    NEW,
                                ]
                            },
                            "block": block,
                            "block_hash": block_hash,
                        }
                    }
                ],
                upsert=True,
            )
            for deal_id, block, block_hash in notices
        ]
        if writes:
            self._rows.bulk_write(writes, ordered=False)

    def new(self, limit: int) -> list[DealId]:
        """Deals noticed and not ingested, oldest first."""
        rows = self._rows.find({"state": NEW}, {"_id": 1}).sort("block", ASCENDING).limit(limit)
        return [DealId(row["_id"]) for row in rows]

    def blocks(self, deal_ids: Iterable[DealId]) -> dict[DealId, BlockNumber]:
        """The block of each deal's match, for those noticed."""
        rows = self._rows.find({"_id": {"$in": list(deal_ids)}}, {"block": 1})
        return {DealId(row["_id"]): BlockNumber(row["block"]) for row in rows}

    def put(self, deals: Sequence[DealRecord]) -> None:
        """Store deals read from the chain; they stay `new` until their tasks are stored too."""
        writes = [
            UpdateOne({"_id": deal.deal_id, "block": deal.matched_block}, {"$set": _to_document(deal)})
            for deal in deals
        ]
        if writes:
            self._rows.bulk_write(writes, ordered=False)

    def ingested(self, deals: Sequence[DealRecord]) -> None:
        """Note that deals and all their tasks are stored."""
        writes = [
            UpdateOne({"_id": deal.deal_id, "block": deal.matched_block, "state": NEW}, {"$set": {"state": READY}})
            for deal in deals
        ]
        if writes:
            self._rows.bulk_write(writes, ordered=False)

    def unreadable(self, deal_id: DealId, why: str) -> None:
        """Set a deal aside that can never be read."""
        self._rows.update_one({"_id": deal_id, "state": NEW}, {"$set": {"state": UNREADABLE, "why": why}})

    def orphan_above(self, block: BlockNumber) -> list[DealId]:
        """Mark deals matched above `block` as gone from the chain; returns them, those marked before too.

        Whoever is told twice repeats what a crash may have cut off.
        """
        rows = self._rows.find({"block": {"$gt": block}}, {"_id": 1})
        deal_ids = [DealId(row["_id"]) for row in rows]
        self._rows.update_many({"_id": {"$in": deal_ids}, "block": {"$gt": block}}, {"$set": {"state": ORPHANED}})
        return deal_ids

    def between(self, first: BlockNumber, last: BlockNumber) -> list[tuple[DealId, BlockNumber, BlockHash]]:
        """Deals matched in blocks first … last and not orphaned."""
        rows = self._rows.find(
            {"block": {"$gte": first, "$lte": last}, "state": {"$ne": ORPHANED}}, {"block": 1, "block_hash": 1}
        )
        return [(DealId(row["_id"]), BlockNumber(row["block"]), BlockHash(row["block_hash"])) for row in rows]

    def at(self, places: Sequence[tuple[DealId, BlockNumber, BlockHash]]) -> list[DealId]:
        """Those deals that are stored as matched in just that block."""
        return [DealId(row["_id"]) for row in self._rows.find(_any_of(places), {"_id": 1})] if places else []

    def orphan(self, places: Sequence[tuple[DealId, BlockNumber, BlockHash]]) -> None:
        """Mark deals as not of the present chain, each only if it is stored as matched in just that block."""
        if places:
            self._rows.update_many(_any_of(places), {"$set": {"state": ORPHANED}})

    def counts(self) -> tuple[int, int]:
        """Roughly how many there are, orphaned ones too; and how many wait to be ingested."""
        # The block is named so that the partial index serves.
        waiting = self._rows.count_documents({"state": NEW, "block": {"$gte": 0}})
        return self._rows.estimated_document_count(), waiting

    def gone(self, deal_ids: Iterable[DealId]) -> list[DealId]:
        """Those of the deals that a reorg took from the chain."""
        rows = self._rows.find({"_id": {"$in": list(deal_ids)}, "state": ORPHANED}, {"_id": 1})
        return [DealId(row["_id"]) for row in rows]

    def get(self, deal_id: DealId) -> DealRecord | None:
        """One ingested deal."""
        found = self.load([deal_id])
        return found[0] if found else None

    def load(self, deal_ids: Iterable[DealId]) -> list[DealRecord]:
        """Those of the deals that are ingested, in no order."""
        rows = self._rows.find({"_id": {"$in": list(deal_ids)}, "start_time": {"$exists": True}})
        return [_to_record(row) for row in rows]


def _any_of(places: Sequence[tuple[DealId, BlockNumber, BlockHash]]) -> dict[str, Any]:
    return {
        "$or": [{"_id": deal_id, "block": block, "block_hash": block_hash} for deal_id, block, block_hash in places]
    }


def _to_document(deal: DealRecord) -> dict[str, Any]:
    return {
        "app": deal.app,
        "image": deal.image,
        "image_checksum": deal.image_checksum,
        "dataset": deal.dataset.model_dump() if deal.dataset else None,
        "workerpool": deal.workerpool,
        "requester": deal.requester,
        "beneficiary": deal.beneficiary,
        "callback": deal.callback,
        "params": deal.params,
        "trust": deal.trust,
        "tag": deal.tag,
        "category_seconds": deal.category_seconds,
        "start_time": deal.start_time,
        "bot_first": deal.bot_first,
        "bot_size": deal.bot_size,
        "worker_stake": str(deal.worker_stake),
        "contribution_deadline": deal.contribution_deadline,
        "final_deadline": deal.final_deadline,
    }


def _to_record(row: Mapping[str, Any]) -> DealRecord:
    return DealRecord(
        deal_id=DealId(row["_id"]),
        app=Contract(row["app"]),
        image=row["image"],
        image_checksum=Hash32(row["image_checksum"]),
        dataset=Dataset(**row["dataset"]) if row["dataset"] else None,
        workerpool=Contract(row["workerpool"]),
        requester=Wallet(row["requester"]),
        beneficiary=Wallet(row["beneficiary"]),
        callback=Contract(row["callback"]),
        params=row["params"],
        trust=row["trust"],
        tag=Hash32(row["tag"]),
        category_seconds=row["category_seconds"],
        start_time=Timestamp(row["start_time"]),
        bot_first=row["bot_first"],
        bot_size=row["bot_size"],
        worker_stake=NRlc(int(row["worker_stake"])),
        contribution_deadline=Timestamp(row["contribution_deadline"]),
        final_deadline=Timestamp(row["final_deadline"]),
        matched_block=BlockNumber(row["block"]),
    )
