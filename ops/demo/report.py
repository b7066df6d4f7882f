"""What `sluice demo --json` prints: deals, tasks, results, and all that a requester needs to use the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops.demo.plan import Purchase
from ops.demo.timeline import Timeline
from ops.market.match import Matched
from ops.pool.on_chain import PoolOnChain
from protocol.poco.view import ChainView
from protocol.types import NRlc, TaskId, Wallet

#: The endpoint that a demo with enclaves has besides.
SECRET_SERVICE = "secret_service"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class DealStory:
    """One deal from match to money."""

    purchase: Purchase
    matched: Matched
    lines: Mapping[TaskId, Timeline]
    views: Mapping[TaskId, ChainView]
    #: Fetched result per task: what the app wrote to result.txt.
    results: Mapping[TaskId, str]
    gains: Mapping[Wallet, NRlc]


def as_json(
    stories: Sequence[DealStory],
    on_chain: PoolOnChain,
    endpoints: Mapping[str, str],
    *,
    seconds: float,
    block_time: float,
) -> dict[str, Any]:
    """The demo's report for `sluice demo --json`; the README documents its keys."""
    offer = on_chain.offer()
    offers = {"app": offer.app.to_json(), "workerpool": offer.workerpool.to_json()}
    if SECRET_SERVICE in endpoints:
        offers["enclave_workerpool"] = on_chain.enclave_offer().workerpool.to_json()
    return {
        "deals": [_deal_json(story) for story in stories],
        "seconds": round(seconds, 1),
        "block_time": block_time,
        "endpoints": dict(endpoints),
        "orders": offers,
    }


def _deal_json(story: DealStory) -> dict[str, Any]:
    """One deal of the report, with its tasks."""
    return {
        "deal_id": story.matched.deal_id,
        "name": story.purchase.name,
        "trust": story.matched.trust,
        "confidential": story.purchase.confidential is not None,
        "tasks": [_task_json(story, task) for task in story.matched.tasks],
    }


def _task_json(story: DealStory, task: TaskId) -> dict[str, Any]:
    """One task of the report."""
    line, view = story.lines[task], story.views[task]
    return {
        "task_id": task,
        "status": view.status.name,
        "matched_block": line.matched,
        "finalized_block": line.finalized,
        "blocks": line.blocks,
        "workers": list(line.workers),
        "result": story.results.get(task),
    }
