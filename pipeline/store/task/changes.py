"""What a decision changes in stored tasks, as few updates: tasks that are at the same version and change alike, as
those of one deal do that were initialized together, share one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from pymongo import UpdateMany, UpdateOne

from pipeline.domain.records import TaskRecord
from pipeline.store.documents import VERSION, Document, over
from pipeline.store.task.documents import to_document
from protocol.types import TaskId

Update: TypeAlias = UpdateOne | UpdateMany
Change: TypeAlias = dict[str, Any] | list[dict[str, Any]]
#: Embedded rows of a task, and what tells which of them is which.
_EMBEDDED = {"replicates": "wallet"}


def changed_fields(before: TaskRecord | None, after: TaskRecord) -> Document:
    """The stored fields that `after` has otherwise than `before`, all of them if that is None; and the schema, of which
    the row may have an earlier one.
    """
    document, known = to_document(after), {"_id": after.task_id} if before is None else to_document(before)
    changed = {name: value for name, value in document.items() if name not in known or known[name] != value}
    return changed | {VERSION: document[VERSION]}


def updates(changes: Iterable[tuple[TaskId, int, Mapping[str, Any]]]) -> list[Update]:
    """One update for all tasks with the same version and the same fields to set. Each: task, version, fields."""
    alike: dict[tuple[int, str], list[TaskId]] = defaultdict(list)
    for task, version, fields in changes:
        alike[version, json.dumps(fields, sort_keys=True)].append(task)
    return [_update(tasks, version, _change(json.loads(fields))) for (version, fields), tasks in alike.items()]


def _change(fields: Document) -> Change:
    """Sets the fields, and never lowers the schema. Replicates keep what a later release stored of them, which a plain
    `$set` would drop.
    """
    if _EMBEDDED.keys() & fields.keys():
        return over(fields, _EMBEDDED)
    schema = {VERSION: fields[VERSION]} if VERSION in fields else {}
    plain = {"$set": {name: value for name, value in fields.items() if name != VERSION}}
    return plain | {"$max": schema} if schema else plain


def _update(tasks: Sequence[TaskId], version: int, change: Change) -> Update:
    """The update of tasks of one version that change alike."""
    if len(tasks) == 1:
        return UpdateOne({"_id": tasks[0], "version": version}, change)
    return UpdateMany({"_id": {"$in": list(tasks)}, "version": version}, change)
