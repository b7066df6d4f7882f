"""Updates of stored tasks: what is written, and which tasks share an update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pymongo import UpdateMany, UpdateOne

from pipeline.domain.records import TaskStage
from pipeline.store.documents import SCHEMA
from pipeline.store.task.changes import changed_fields, updates
from pipeline.store.task.documents import to_document
from protocol.types import TaskId
from tests.unit.pipeline.builders import task

ONE, TWO, THREE = (TaskId(f"0x{number:064x}") for number in (1, 2, 3))


def parts(update: UpdateOne | UpdateMany) -> tuple[dict[str, Any], Any]:
    return dict(update._filter), update._doc


def test_only_what_a_decision_changed_is_written() -> None:
    before = task()
    after = replace(before, stage=TaskStage.RUNNING, wants=2)
    assert changed_fields(before, after) == {"stage": "RUNNING", "wants": 2, "schema": SCHEMA}


def test_a_row_of_an_earlier_release_has_this_schema_then_and_one_of_a_later_keeps_its_own() -> None:
    (update,) = updates([(ONE, 0, {"stage": "RUNNING", "schema": SCHEMA})])
    assert parts(update)[1] == {"$set": {"stage": "RUNNING"}, "$max": {"schema": SCHEMA}}


def test_of_a_task_that_was_not_read_before_everything_is_written() -> None:
    document = to_document(task())
    del document["_id"]
    assert changed_fields(None, task()) == document


def test_tasks_that_change_alike_share_one_update() -> None:
    same, other = {"wants": 1, "sent": {"initialize": {"at": 5.5}}}, {"wants": 2}
    first, second = updates([(ONE, 0, same), (TWO, 0, other), (THREE, 0, dict(same))])
    assert isinstance(first, UpdateMany)
    assert parts(first) == ({"_id": {"$in": [ONE, THREE]}, "version": 0}, {"$set": same})
    assert isinstance(second, UpdateOne)
    assert parts(second) == ({"_id": TWO, "version": 0}, {"$set": other})


def test_tasks_at_different_versions_do_not_share_an_update() -> None:
    assert [parts(update)[0]["version"] for update in updates([(ONE, 0, {"wants": 1}), (TWO, 1, {"wants": 1})])] == [
        0,
        1,
    ]
