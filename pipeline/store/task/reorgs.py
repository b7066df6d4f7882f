"""Tasks of deals that a reorganisation took off the chain or brought back, in the collection `tasks`.

A deal's id is the hash of its request order and of the number of its first task, of nothing else. So a deal that comes
back may have been matched with other orders than before: with fewer tasks or more, at another price, with another tag.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.collection import Collection

from pipeline.domain.decide import ORPHANED_FOR_GOOD
from pipeline.domain.records import DealRecord, TaskStage
from protocol.types import DealId

Rows = Collection[dict[str, Any]]


def orphan(rows: Rows, deal_ids: Sequence[DealId]) -> None:
    """Mark all tasks of these deals as orphaned, since a reorg took the deals off the chain."""
    _mark_orphaned(rows, {"deal": {"$in": list(deal_ids)}})


def bring_back(rows: Rows, deal: DealRecord) -> None:
    """Give a deal's tasks the terms that it has now; those that a reorg took are on the chain again.

    They are open until they are found ended on the new branch too; those that had ended because their deal was gone
    begin anew. Tasks that the deal had and has no more can never be initialized: they wait as if it were still gone.
    """
    of_deal = {"deal": deal.deal_id, "index": {"$gte": deal.bot_first, "$lt": deal.bot_first + deal.bot_size}}
    terms = _terms(deal)
    other = of_deal | {"$or": [{name: {"$ne": value}} for name, value in terms.items()]}
    rows.update_many(other, {"$set": {**terms, "next_visit": 0.0}, "$inc": {"version": 1}})
    gone = of_deal | {"orphaned": True}
    back: dict[str, Any] = {"orphaned": False, "open": True, "next_visit": 0.0, "wants": 0}
    written_off = gone | {"stage": str(TaskStage.FAILED), "why": ORPHANED_FOR_GOOD}
    anew = back | {"stage": str(TaskStage.RECEIVED), "why": None, "sent": {}}
    rows.update_many(written_off, {"$set": anew, "$inc": {"version": 1}})
    rows.update_many(gone, {"$set": back, "$inc": {"version": 1}})
    _mark_orphaned(rows, {"deal": deal.deal_id, "index": {"$gte": deal.bot_first + deal.bot_size}})


def _mark_orphaned(rows: Rows, tasks: Mapping[str, Any]) -> None:
    """Mark those of these tasks as orphaned that are not."""
    change = {"orphaned": True, "next_visit": 0.0, "wants": 0, "changed_at": time.time()}
    rows.update_many({**tasks, "orphaned": False}, {"$set": change, "$inc": {"version": 1}})


def _terms(deal: DealRecord) -> dict[str, Any]:
    """What of a deal's terms a task's row holds and other orders or another block may change, as it is stored."""
    return {
        "contribution_deadline": deal.contribution_deadline,
        "final_deadline": deal.final_deadline,
        "matched_at": deal.start_time,
        "matched_block": deal.matched_block,
        "tag": deal.tag,
        "worker_stake": str(deal.worker_stake),
    }
