"""Collection `logs`: every PoCo event of our deals and tasks, kept for ever; a reorg marks, it never deletes.

_id = <block hash>:<log index>     so the same log read twice is one row, and its twin in another block is another
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pymongo import ASCENDING, IndexModel, ReplaceOne
from pymongo.collection import Collection
from pymongo.database import Database

from protocol import events
from protocol.types import BlockHash, BlockNumber, TaskId, Timestamp, TxHash

INDEXES = [
    IndexModel([("event.task_id", ASCENDING), ("orphaned", ASCENDING)], name="by_task"),
    IndexModel([("block", ASCENDING)], name="by_block"),
]

_KINDS: dict[str, type[events.Event]] = {
    kind.__name__: kind
    for kind in (
        events.SchedulerNotice,
        events.TaskInitialize,
        events.TaskContribute,
        events.TaskConsensus,
        events.TaskReveal,
        events.TaskReopen,
        events.TaskFinalize,
        events.TaskClaimed,
        events.AccurateContribution,
        events.FaultyContribution,
    )
}


class Logs:
    """Queries on `logs`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["logs"]

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def put(self, seen: Sequence[events.Seen]) -> None:
        """Store logs as part of the present chain, whether or not they were known or orphaned before."""
        if seen:
            self._rows.bulk_write(
                [ReplaceOne({"_id": _key(item)}, _to_document(item), upsert=True) for item in seen], ordered=False
            )

    def of_tasks(self, task_ids: Iterable[TaskId]) -> dict[TaskId, list[events.Seen]]:
        """Logs on the present chain for each of the tasks, in chain order; tasks without any are left out."""
        rows = self._rows.find({"event.task_id": {"$in": list(task_ids)}, "orphaned": False})
        found: dict[TaskId, list[events.Seen]] = defaultdict(list)
        for row in rows:
            found[TaskId(row["event"]["task_id"])].append(_to_seen(row))
        for seen in found.values():
            seen.sort(key=lambda item: (item.block_number, item.log_index))
        return dict(found)

    def orphan_above(self, block: BlockNumber) -> list[TaskId]:
        """Mark logs above `block` as gone from the chain; returns the tasks they were about."""
        above = {"block": {"$gt": block}}
        tasks = self._rows.distinct("event.task_id", above)
        self._rows.update_many(above, {"$set": {"orphaned": True}})
        return [TaskId(task) for task in tasks if task is not None]

    def between(self, first: BlockNumber, last: BlockNumber) -> list[events.Seen]:
        """Logs of blocks first … last on the present chain."""
        return [_to_seen(row) for row in self._rows.find({"block": {"$gte": first, "$lte": last}, "orphaned": False})]

    def initialized(self, task_ids: Iterable[TaskId]) -> set[TaskId]:
        """Those of the tasks that were initialized on the present chain."""
        begun = {"event.task_id": {"$in": list(task_ids)}, "orphaned": False, "kind": events.TaskInitialize.__name__}
        rows = self._rows.find(begun, {"event.task_id": 1})
        return {TaskId(row["event"]["task_id"]) for row in rows}

    def orphan(self, seen: Sequence[events.Seen]) -> None:
        """Mark these logs as not of the present chain."""
        self._rows.update_many({"_id": {"$in": [_key(item) for item in seen]}}, {"$set": {"orphaned": True}})

    def count(self) -> int:
        """Roughly how many there are, orphaned ones too."""
        return self._rows.estimated_document_count()

    def since(self, block: BlockNumber) -> list[TaskId]:
        """Tasks with a log in or above `block` on the present chain."""
        tasks = self._rows.distinct("event.task_id", {"block": {"$gte": block}, "orphaned": False})
        return [TaskId(task) for task in tasks if task is not None]


def _key(seen: events.Seen) -> str:
    return f"{seen.block_hash}:{seen.log_index}"


def _to_document(seen: events.Seen) -> dict[str, Any]:
    return {
        "_id": _key(seen),
        "kind": type(seen.event).__name__,
        "event": asdict(seen.event),
        "block": seen.block_number,
        "block_hash": seen.block_hash,
        "at": seen.timestamp,
        "tx": seen.tx_hash,
        "log_index": seen.log_index,
        "orphaned": False,
    }


def _to_seen(row: Mapping[str, Any]) -> events.Seen:
    return events.Seen(
        event=_KINDS[row["kind"]](**row["event"]),
        block_number=BlockNumber(row["block"]),
        block_hash=BlockHash(row["block_hash"]),
        timestamp=Timestamp(row["at"]),
        tx_hash=TxHash(row["tx"]),
        log_index=row["log_index"],
    )
