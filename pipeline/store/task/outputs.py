"""Collection `outputs`: what apps printed, for the requester; deleted after KEEP_DAYS."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from pipeline.domain.records import ComputeLog
from pipeline.store.documents import Documents
from pipeline.store.quarantine import Quarantine, Reader
from protocol.types import TaskId

#: Days an app's output is kept, as iExec Core does after the final deadline.
KEEP_DAYS = 3

INDEXES = [
    IndexModel([("task", ASCENDING)], name="by_task"),
    IndexModel([("at", ASCENDING)], name="forget", expireAfterSeconds=KEEP_DAYS * 24 * 3600),
]

OUTPUTS = Documents(ComputeLog, names={"task_id": "task"})


class Outputs:
    """Queries on `outputs`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["outputs"]
        self.reader = Reader(self._rows, OUTPUTS, Quarantine(db))

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def put(self, output: ComputeLog, now: float) -> bool:
        """Keep an output; the first of a task and wallet wins. False if there was one."""
        try:
            self._rows.insert_one(
                {
                    **OUTPUTS.to_document(output),
                    "_id": f"{output.task_id}:{output.wallet}",
                    "at": datetime.fromtimestamp(now, UTC),
                }
            )
        except DuplicateKeyError:
            return False
        return True

    def of_task(self, task_id: TaskId) -> list[ComputeLog]:
        """Outputs of a task, by wallet."""
        rows = self._rows.find({"task": task_id}).sort("wallet", ASCENDING)
        return self.reader.each(rows)
