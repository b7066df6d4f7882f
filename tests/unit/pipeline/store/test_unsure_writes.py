"""Bulk writes of which MongoDB cannot say that they last: the primary stepped down before a majority had them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.errors import BulkWriteError

from pipeline.flow import isolate
from pipeline.store.task import tasks as module
from pipeline.store.task.tasks import Tasks

STEPPED_DOWN = {"code": 189, "codeName": "PrimarySteppedDown", "errmsg": "Primary stepped down while waiting"}
REFUSED = {"index": 0, "code": 16755, "errmsg": "Can't extract geo keys"}


def unsure(*refused: dict[str, Any]) -> BulkWriteError:
    return BulkWriteError(
        {"writeErrors": list(refused), "writeConcernErrors": [STEPPED_DOWN], "nInserted": 1, "nMatched": 1}
    )


def refusal() -> BulkWriteError:
    return BulkWriteError({"writeErrors": [REFUSED], "writeConcernErrors": [], "nInserted": 0, "nMatched": 0})


def tasks_that_raise(error: BulkWriteError, monkeypatch: pytest.MonkeyPatch, lasting: Any = None) -> Tasks:
    def bulk_write(*_: object, **__: object) -> None:
        raise error

    tasks: Any = Tasks.__new__(Tasks)
    tasks._rows, tasks._lasting = SimpleNamespace(bulk_write=bulk_write), lasting
    monkeypatch.setattr(module, "to_document", lambda task: {"_id": task.task_id})
    monkeypatch.setattr(module, "changed_fields", lambda *_: {})
    found: Tasks = tasks
    return found


def test_tasks_that_may_be_lost_again_do_not_count_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BulkWriteError):
        tasks_that_raise(unsure(), monkeypatch).insert_new([SimpleNamespace(task_id="0x1")])  # type: ignore[list-item]


def test_it_is_asked_which_saved_tasks_last(monkeypatch: pytest.MonkeyPatch) -> None:
    lasting = SimpleNamespace(find=lambda *_: [{"_id": "0x1"}])
    saved: Any = [SimpleNamespace(task_id="0x1", version=1), SimpleNamespace(task_id="0x2", version=1)]
    assert tasks_that_raise(unsure(), monkeypatch, lasting).save(saved) == {"0x1"}
    with pytest.raises(BulkWriteError):
        tasks_that_raise(refusal(), monkeypatch, lasting).save(saved)


def test_nothing_is_quarantined_for_what_mongodb_cannot_tell() -> None:
    assert isolate.is_transient(unsure())
    assert isolate.is_transient(unsure(REFUSED))
    assert not isolate.is_transient(refusal())
