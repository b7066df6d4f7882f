"""Collections `blocks` and `cursors`: how far the watcher came, and which blocks it has followed.

Implements the watcher's store and the audit's. The cursor moves after the work is stored, and back after it is taken
back: a crash in between makes the watcher do the step again, and every step may be done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from pymongo import DESCENDING, ReplaceOne
from pymongo.collection import Collection
from pymongo.database import Database

from chain.lane.model.intent import LaneId
from chain.lane.store.mongo import one_pending
from chain.watch.audit import Audit, DealPlace
from chain.watch.watcher import Reorg
from pipeline.store.deals import Deals
from pipeline.store.documents import Documents, Row
from pipeline.store.logs import Logs
from pipeline.store.quarantine import Quarantine, Reader
from pipeline.store.sweeps import WATCH
from pipeline.store.task.tasks import Tasks
from protocol.errors import Unfit
from protocol.poco.events import BlockRef, SchedulerNotice, Seen
from protocol.types import BlockNumber, TaskId

log = structlog.get_logger(__name__)

#: Blocks kept below the cursor: deeper than any reorg that the watcher walks back.
KEEP_BLOCKS = 4096
#: Old blocks are deleted once every so many.
PRUNE_EVERY = 512
CURSOR = WATCH
#: Beside the cursor: the block from which on events are stored, where that is not the settings' first one.
FIRST = "first"
#: Beside the cursor: the last reorganisations, and how many are kept.
REORGS, KEEP_REORGS = "reorgs", 20

#: Seconds without a new block, by the database's clock, after which nothing could be done on chain for a while: five
#: blocks of Ethereum, the slowest chain that is served. And when blocks were seen again after the last such while.
GAP_SECONDS = 60.0
_NOW = {"$divide": [{"$toLong": "$$NOW"}, 1000.0]}
_BEFORE = {"$cond": [{"$isNumber": "$stored_at"}, "$stored_at", _NOW]}
_GAP = {"$gt": [{"$subtract": [_NOW, _BEFORE]}, GAP_SECONDS]}
_AGAIN = {"stored_at": _NOW, "again_at": {"$cond": [_GAP, _NOW, {"$ifNull": ["$again_at", 0.0]}]}}

#: A block as one of the last ones followed, and as what the cursor names.
BLOCKS = Documents(BlockRef, names={"number": "_id", "parent_hash": "parent", "timestamp": "at"}, versioned=False)


class ChainStore:
    """What the watcher stores: blocks, cursor, logs, reorganisations."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._blocks: Collection[dict[str, Any]] = db["blocks"]
        self._cursors: Collection[dict[str, Any]] = db["cursors"]
        self.reader = Reader(self._blocks, BLOCKS, Quarantine(db))
        self._deals = Deals(db)
        self._tasks = Tasks(db)
        self.logs = Logs(db)

    def ensure_indexes(self) -> None:
        """Create the indexes; blocks and cursors are found by `_id`."""
        self.logs.ensure_indexes()

    def cursor(self) -> BlockRef | None:
        """The last block whose logs are stored; None before the first."""
        return self._read_cursor(self._cursors.find_one({"_id": CURSOR}))

    def at_head(self, lane: LaneId) -> tuple[BlockRef | None, bool]:
        """What the watcher reads first at each head, in one query: the cursor, and whether the lane has transactions to
        be sent or mined.
        """
        rows = {row["_id"]: row for row in self._cursors.aggregate([{"$match": {"_id": CURSOR}}, one_pending(lane)])}
        row = rows.pop(CURSOR, None)
        return self._read_cursor(row), bool(rows)

    def _read_cursor(self, row: Row | None) -> BlockRef | None:
        """The block that the cursor's row names; None without a row."""
        try:
            return None if row is None else BLOCKS.to_record({**row, "_id": row["number"]})
        except (Unfit, KeyError) as error:
            # The work of every block that is kept was stored too; those since the newest readable one are read again.
            log.exception("The cursor cannot be read; the newest block serves.", action="cursor_broken", why=str(error))
            return next(iter(self.reader.each(self._blocks.find().sort("_id", DESCENDING).limit(PRUNE_EVERY))), None)

    def followed_from(self, start_block: int) -> BlockNumber:
        """The block from which on events are stored: where `begin_behind` began, below or above the settings'
        `start_block`, which counts in its absence.
        """
        row = self._cursors.find_one({"_id": FIRST}, {"number": 1})
        return BlockNumber(start_block if row is None else int(row["number"]))

    def begin_behind(self, block: BlockRef) -> None:
        """Have an empty store followed from the block after this one on, and no block before it missed."""
        self._cursors.update_one({"_id": FIRST}, {"$set": {"number": block.number + 1}}, upsert=True)
        self.commit([block], [])

    def block(self, number: BlockNumber) -> BlockRef | None:
        """A block as it was when its work was stored; None if that is not known."""
        row = self._blocks.find_one({"_id": number})
        return None if row is None else next(iter(self.reader.each([row])), None)

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
            [ReplaceOne({"_id": block.number}, BLOCKS.to_document(block), upsert=True) for block in blocks],
            ordered=False,
        )
        last = blocks[-1]
        self._cursors.update_one(
            {"_id": CURSOR},
            [
                {
                    "$replaceWith": {
                        "$cond": [
                            {"$and": [{"$isNumber": "$number"}, {"$gt": ["$number", last.number]}]},
                            "$$ROOT",
                            {"_id": CURSOR, "number": last.number, **_facts(last), **_AGAIN},
                        ]
                    }
                }
            ],
            upsert=True,
        )
        if last.number // PRUNE_EVERY != (blocks[0].number - 1) // PRUNE_EVERY:
            self._blocks.delete_many({"_id": {"$lt": last.number - KEEP_BLOCKS}})

    def orphan(self, above: BlockNumber) -> list[TaskId]:
        """Undo all that is stored of blocks above `above`, which a reorg replaced. Returns the tasks whose view
        changed.
        """
        tasks = self.logs.orphan_above(above)
        self._tasks.forget_sent(tasks)
        self._tasks.orphan(self._deals.orphan_above(above))
        survivor = self.block(above)
        if survivor is None:
            self._cursors.delete_one({"_id": CURSOR})
        else:
            back = {"number": survivor.number, **_facts(survivor)}
            self._cursors.update_one({"_id": CURSOR}, {"$set": back}, upsert=True)
        self._blocks.delete_many({"_id": {"$gt": above}})
        return tasks

    def note(self, reorg: Reorg) -> None:
        """Keep a reorganisation among the last ones."""
        top, ancestor = BLOCKS.to_document(reorg.top), BLOCKS.to_document(reorg.ancestor)
        row = {"ancestor": ancestor, "top": top, "tasks": reorg.tasks}
        self._cursors.update_one(
            {"_id": REORGS}, {"$push": {"last": {"$each": [row], "$slice": -KEEP_REORGS}}}, upsert=True
        )

    def reorgs(self) -> list[Reorg]:
        """The last reorganisations, oldest first."""
        row = self._cursors.find_one({"_id": REORGS}) or {"last": []}
        return [reorg for item in row.get("last") or () for reorg in _reorg(item)]

    def known(self, task_ids: Sequence[TaskId]) -> set[TaskId]:
        """Which of these tasks are ours: stored, or initialized for our pool before their deal was ingested."""
        known = self._tasks.known(task_ids)
        rest = [task for task in task_ids if task not in known]
        return known | self.logs.initialized(rest) if rest else known

    # -- audit and replay ----------------------------------------------------------------------------------------------

    def logs_between(self, first: BlockNumber, last: BlockNumber) -> list[Seen]:
        """Logs of blocks first … last on the present chain."""
        return self.logs.logs_between(first, last)

    def deals_between(self, first: BlockNumber, last: BlockNumber) -> list[DealPlace]:
        """Deals of blocks first … last on the present chain."""
        return [DealPlace(*deal) for deal in self._deals.deals_between(first, last)]

    def repair(self, found: Audit) -> None:
        """Make the store equal to the chain; the next sweep visits the deals and tasks concerned, ended or not.

        No message is needed for that, so none can get lost.
        """
        # Before and after: a crash between storing and marking would leave an ended task as it is for ever.
        self._tasks.forget_sent(found.tasks)
        # Also what is stored in the place of what is missing, perhaps in a row with others.
        self.logs.orphan([*found.extra, *found.missing])
        self.logs.put(found.missing)
        extra = [(deal.deal_id, deal.block_number, deal.block_hash) for deal in found.extra_deals]
        gone = self._deals.stored_at(extra)
        # Before: while the deal is extra, the next replay does what a crash cut off. After: tasks may just have come.
        self._tasks.orphan(gone)
        self._deals.orphan(extra)
        self._tasks.orphan(gone)
        self._deals.noticed([(deal.deal_id, deal.block_number, deal.block_hash) for deal in found.missing_deals])
        self._tasks.forget_sent(found.tasks)


def _facts(block: BlockRef) -> dict[str, Any]:
    """A block's fields without its key."""
    return {key: value for key, value in BLOCKS.to_document(block).items() if key != "_id"}


def _reorg(item: Row) -> list[Reorg]:
    """A noted reorganisation; nothing if it cannot be read."""
    try:
        return [Reorg(BLOCKS.to_record(item["ancestor"]), BLOCKS.to_record(item["top"]), item["tasks"])]
    except (Unfit, KeyError, TypeError) as error:
        log.warning("A reorganisation that was noted cannot be read.", action="reorg_broken", why=str(error))
        return []
