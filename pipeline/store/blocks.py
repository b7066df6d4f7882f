"""Collections `blocks` and `cursors`: how far the watcher came, and which blocks it stood on.

Implements the watcher's store. The cursor moves after the work is stored, and back after it is taken back: a crash in
between makes the watcher do the step again, and every step may be done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import ReplaceOne
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.store.deals import Deals
from pipeline.store.logs import Logs
from pipeline.store.tasks import Tasks
from protocol.events import BlockRef, SchedulerNotice, Seen
from protocol.types import BlockHash, BlockNumber, TaskId, Timestamp

#: Blocks kept below the cursor: deeper than any reorg that the watcher walks back.
KEEP_BLOCKS = 4096
#: Old blocks are deleted once every so many.
PRUNE_EVERY = 512
CURSOR = "watch"


class ChainStore:
    """The watcher's memory."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._blocks: Collection[dict[str, Any]] = db["blocks"]
        self._cursors: Collection[dict[str, Any]] = db["cursors"]
        self._deals = Deals(db)
        self._tasks = Tasks(db)
        self.logs = Logs(db)

    def ensure_indexes(self) -> None:
        """Create the indexes; blocks and cursors are found by `_id`."""
        self.logs.ensure_indexes()

    def cursor(self) -> BlockRef | None:
        """The last block whose work is stored."""
        row = self._cursors.find_one({"_id": CURSOR})
        return None if row is None else _to_block({**row, "_id": row["number"]})

    def block(self, number: BlockNumber) -> BlockRef | None:
        """A block as it was when its work was stored."""
        row = self._blocks.find_one({"_id": number})
        return None if row is None else _to_block(row)

    def commit(self, blocks: Sequence[BlockRef], logs: Sequence[Seen]) -> None:
        """Store what happened in `blocks` (ascending), then move the cursor to the last of them.

        Blocks below the cursor (the overlap read again at start) leave it where it is.
        """
        self.logs.put(logs)
        self._deals.noticed(
            [
                (item.event.deal_id, item.block_number, item.block_hash)
                for item in logs
                if isinstance(item.event, SchedulerNotice)
            ]
        )
        if not blocks:
            return
        self._blocks.bulk_write(
            [ReplaceOne({"_id": block.number}, _to_document(block), upsert=True) for block in blocks], ordered=False
        )
        last = blocks[-1]
        self._cursors.update_one(
            {"_id": CURSOR},
            [
                {
                    "$replaceWith": {
                        "$cond": [
                            {"$gt": ["$number", last.number]},
                            "$$ROOT",
                            {"_id": CURSOR, "number": last.number, **_facts(last)},
                        ]
                    }
                }
            ],
            upsert=True,
        )
        if last.number // PRUNE_EVERY != (blocks[0].number - 1) // PRUNE_EVERY:
            self._blocks.delete_many({"_id": {"$lt": last.number - KEEP_BLOCKS}})

    def orphan(self, above: BlockNumber) -> list[TaskId]:
        """Take back everything above a block that a reorg left standing; returns the tasks whose view changed."""
        tasks = self.logs.orphan_above(above)
        self._tasks.forget_sent(tasks)
        self._tasks.set_orphaned(self._deals.orphan_above(above), orphaned=True)
        survivor = self.block(above)
        if survivor is None:
            self._cursors.delete_one({"_id": CURSOR})
        else:
            self._cursors.replace_one({"_id": CURSOR}, {"number": survivor.number, **_facts(survivor)}, upsert=True)
        self._blocks.delete_many({"_id": {"$gt": above}})
        return tasks


def _facts(block: BlockRef) -> dict[str, Any]:
    return {"hash": block.hash, "parent": block.parent_hash, "at": block.timestamp}


def _to_document(block: BlockRef) -> dict[str, Any]:
    return {"_id": block.number, **_facts(block)}


def _to_block(row: Mapping[str, Any]) -> BlockRef:
    return BlockRef(BlockNumber(row["_id"]), BlockHash(row["hash"]), BlockHash(row["parent"]), Timestamp(row["at"]))
