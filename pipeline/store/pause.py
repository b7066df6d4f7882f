"""Collection `pool`: whether the operator has paused the pool, for every process that shares the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database

#: Id of the row, which is there while the pool is paused.
PAUSE = "pause"
_ROW = {"_id": PAUSE}


@dataclass(frozen=True, slots=True)
class Pause:
    """The pool begins no task since `since` (Unix seconds)."""

    since: float
    why: str = ""


class PauseSwitch:
    """The operator's switch (`sluice pool pause`, `resume`)."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["pool"]

    def state(self) -> Pause | None:
        """The pause that holds now; None: the pool takes work."""
        return _pause(self._rows.find_one(_ROW))

    def pause(self, now: float, why: str) -> Pause:
        """Begin no task from `now` on (Unix seconds). A pause that holds keeps its start and takes the new reason."""
        found = {"since": {"$ifNull": ["$since", now]}, "why": {"$literal": why}}
        row = self._rows.find_one_and_update(_ROW, [{"$set": found}], upsert=True, return_document=ReturnDocument.AFTER)
        return _pause(row) or Pause(now, why)

    def resume(self) -> Pause | None:
        """Take work again; returns the pause that ended, None if there was none."""
        return _pause(self._rows.find_one_and_delete(_ROW))


def _pause(row: dict[str, Any] | None) -> Pause | None:
    """The pause in a stored row; None without a row."""
    return None if row is None else Pause(float(row["since"]), str(row.get("why") or ""))
