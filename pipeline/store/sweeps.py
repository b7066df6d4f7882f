"""The row `sweep` in `cursors`: when a sweep ran last, and when one last found that machines could not be heard."""

from __future__ import annotations

from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.condition.hearing import Hearing
from pipeline.domain.outcomes import Trouble
from pipeline.domain.records import CLOCKS_APART

#: The row of the sweep.
SWEEP = "sweep"
#: Seconds for which a host that sweeps no more is remembered: containers have a new name at each start.
CLOCK_SECONDS = 86_400.0
_NEVER = {"$ifNull": ["$unheard_at", 0.0]}
#: The row of the watcher's cursor (`pipeline.store.blocks`).
WATCH = "watch"


class Sweeps:
    """What one sweep stores for the next one, whichever process runs it, also after a restart."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._cursors: Collection[dict[str, Any]] = db["cursors"]

    def unheard_at(self) -> float:
        """When the API last could not hear machines, as `record` returned it: Unix seconds, 0 for never."""
        row = self._cursors.find_one({"_id": SWEEP}, {"unheard_at": 1})
        return 0.0 if row is None else float(row.get("unheard_at", 0.0))

    def hearing(self) -> Hearing:
        """What the last sweeps found about whether machines can be heard. Raises PyMongoError."""
        row = self._cursors.find_one({"_id": SWEEP}, {"swept_at": 1, "unheard_at": 1, "unheard_since": 1}) or {}
        swept_at, unheard_at = row.get("swept_at"), float(row.get("unheard_at", 0.0))
        return Hearing(
            None if swept_at is None else float(swept_at), float(row.get("unheard_since", unheard_at)), unheard_at
        )

    def outages(self, now: float, last_after: float) -> Trouble:
        """The pool's own outages, as far as the rows of the sweep and the watcher tell. If no sweep ran since
        `last_after`, machines cannot be heard `now`: the next one will find that, and may not be the first to act.

        0 for what is not known, also where a row cannot be read: that is not of the task that asks.
        """
        shown = {"unheard_at": 1, "swept_at": 1, "at": 1, "again_at": 1}
        found = {row["_id"]: row for row in self._cursors.find({"_id": {"$in": [SWEEP, WATCH]}}, shown)}
        sweep, watch = found.get(SWEEP, {}), found.get(WATCH, {})
        none_ran = 0 < _seconds(sweep.get("swept_at")) < last_after
        return Trouble(
            now if none_ran else _seconds(sweep.get("unheard_at")),
            _seconds(watch.get("at")),
            blocks_again_at=_seconds(watch.get("again_at")),
        )

    def last(self) -> tuple[float | None, str | None]:
        """When a sweep ran last (Unix seconds), and the process that ran it, as `record` was told; None: not known."""
        row = self._cursors.find_one({"_id": SWEEP}, {"swept_at": 1, "by": 1}) or {}
        swept_at, by = row.get("swept_at"), row.get("by")
        return (
            float(swept_at) if isinstance(swept_at, int | float) else None,
            by if isinstance(by, str) and by else None,
        )

    def clock_was_set_back(self, now: float, clock: str) -> bool:
        """Whether this host's last sweep was after `now`, so that its clock was set back; True only once. `clock`: the
        host's name.

        Of a host whose sweeps are not known, the last sweep of all counts: it may be this one under another name.
        """
        later = {"$gt": now + CLOCKS_APART}
        own, unknown = {"clocks": {"$elemMatch": {"clock": clock, "at": later}}}, {"clocks.clock": {"$ne": clock}}
        query = {"_id": SWEEP, "$or": [own, unknown | {"swept_at": later}]}
        change = {"$set": {"swept_at": now, "clocks": _clocks(clock, now)}}
        return self._cursors.update_one(query, [change]).modified_count > 0

    def record(self, now: float, *, heard: bool, last_after: float, by: str = "", clock: str = "") -> float:
        """Record a sweep at `now`, by this process (`by`, for people) and this host's `clock`; returns when machines
        could last not be heard (Unix seconds): because a sweep heard of no machine (`heard`), or because none ran from
        `last_after` until the next one.
        """
        none_ran = {"$lt": [{"$ifNull": ["$swept_at", 0.0]}, last_after]}
        not_heard = True if not heard else none_ran
        in_a_row = {"$and": [{"$gte": [_NEVER, {"$ifNull": ["$swept_at", now]}]}, {"$not": none_ran}]}
        row = self._cursors.find_one_and_update(
            {"_id": SWEEP},
            [
                {
                    "$set": {
                        "unheard_at": {"$cond": [not_heard, now, _NEVER]},
                        "unheard_since": {
                            "$cond": [
                                {"$and": [not_heard, {"$not": in_a_row}]},
                                now,
                                {"$ifNull": ["$unheard_since", {"$cond": [not_heard, now, _NEVER]}]},
                            ]
                        },
                        "swept_at": {"$max": ["$swept_at", now]},
                        "by": {"$literal": by},
                        # What changes at each sweep, also where `swept_at` is still of a host whose clock is ahead.
                        "count": {"$add": [{"$ifNull": ["$count", 0]}, 1]},
                        "clocks": _clocks(clock, now),
                    }
                }
            ],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        assert row is not None, "upserted"
        return float(row["unheard_at"])


def _seconds(value: object) -> float:
    """A stored moment; 0 for anything else."""
    return float(value) if isinstance(value, int | float) else 0.0


def _clocks(clock: str, now: float) -> dict[str, Any]:
    """The expression for when each host swept last, with this one's sweep; those of long ago are left out."""
    known = {"$ifNull": ["$clocks", []]}
    others = {"$and": [{"$ne": ["$$this.clock", {"$literal": clock}]}, {"$gt": ["$$this.at", now - CLOCK_SECONDS]}]}
    own = {"clock": {"$literal": clock}, "at": now}
    return {"$concatArrays": [{"$filter": {"input": known, "cond": others}}, [own]]}
