"""Task records as MongoDB documents and back; the only place that knows the document's shape."""

from __future__ import annotations

from pipeline.domain.records import Replicate, TaskRecord
from pipeline.store.documents import Document, Documents, Row

#: Amounts and products of weights may pass 64 bits; text keeps every digit.
TASKS = Documents(TaskRecord, names={"task_id": "_id", "deal_id": "deal"}, text=("worker_stake", "leading", "others"))
_REPLICATES = Documents(Replicate, versioned=False)


def to_document(task: TaskRecord) -> Document:
    """The whole document of a task."""
    return TASKS.to_document(task)


def to_record(row: Row) -> TaskRecord:
    """The record of a document. Raises Unfit."""
    return TASKS.to_record(row)


def replicate_document(replicate: Replicate) -> Document:
    """A replicate as it is embedded in its task."""
    return _REPLICATES.to_document(replicate)
