"""`/metrics` as JSON, in the shape of iExec Core 9: what iExec's order tooling polls to size workerpool orders.

Its CPUs are free and taken slots here: a task takes one. A machine that offers a GPU counts as one GPU, and none of its
slots as CPUs.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from config.settings import Settings
from pipeline.domain.records import TaskStage
from pipeline.store.client import Store
from protocol.poco.tags import needs_gpu

#: Task statuses of iExec Core that are no stages here: always 0.
_OTHERS = (
    "INITIALIZING",
    "INITIALIZE_FAILED",
    "RUNNING_FAILED",
    "CONTRIBUTION_TIMEOUT",
    "REOPENING",
    "REOPENED",
    "REOPEN_FAILED",
    "RESULT_UPLOADING",
    "RESULT_UPLOAD_TIMEOUT",
    "FINALIZED",
    "FINALIZE_FAILED",
    "FINAL_DEADLINE_REACHED",
)


class _Model(BaseModel):
    """Base of this module's models: frozen, with camel case names in JSON."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class LatestBlock(_Model):
    """The last block that the watcher has followed."""

    block_number: int
    block_hash: str | None
    block_timestamp: str | None


class PlatformMetric(_Model):
    """The pool's machines, tasks and deals. Field names are iExec Core's."""

    alive_workers: int
    alive_computing_cpu: int
    alive_registered_cpu: int
    alive_computing_gpu: int
    alive_registered_gpu: int
    #: Kept by iExec Core for older tooling.
    alive_available_cpu: int
    alive_total_cpu: int
    alive_available_gpu: int
    alive_total_gpu: int
    #: Tasks that are not over, by status.
    current_task_statuses_count: dict[str, int]
    latest_block_metric: LatestBlock
    deal_events_count: int
    deals_count: int
    replay_deals_count: int = 0
    latest_block_number_with_deal: int


def platform_metric(store: Store, settings: Settings, now: float) -> PlatformMetric:
    """The pool's machines, tasks and deals at `now` (Unix seconds). Raises PyMongoError."""
    capacity = store.census.capacity(now - settings.worker_lost_seconds, now)
    gpus = [found for tag, found in capacity.items() if needs_gpu(tag)]
    others = [found for tag, found in capacity.items() if not needs_gpu(tag)]
    computing = sum(found.held for found in others)
    # No more than can be taken: one that may use fewer slots than it has in use finishes them.
    registered = computing + sum(found.free for found in others)
    with_gpu, computing_gpu = sum(found.machines for found in gpus), sum(found.busy for found in gpus)
    stages = store.lists.count_by_stage()
    cursor, newest = store.chain.cursor(), store.deals.newest(1)
    deals = store.deals.count()
    return PlatformMetric(
        alive_workers=sum(found.machines for found in capacity.values()),
        alive_computing_cpu=computing,
        alive_registered_cpu=registered,
        alive_computing_gpu=computing_gpu,
        alive_registered_gpu=with_gpu,
        alive_available_cpu=registered - computing,
        alive_total_cpu=registered,
        alive_available_gpu=with_gpu - computing_gpu,
        alive_total_gpu=with_gpu,
        current_task_statuses_count={
            **dict.fromkeys((*(str(stage) for stage in TaskStage), *_OTHERS), 0),
            **{str(stage): found.count for stage, found in stages.items()},
        },
        latest_block_metric=LatestBlock(
            block_number=0 if cursor is None else cursor.number,
            block_hash=None if cursor is None else cursor.hash,
            block_timestamp=None if cursor is None else datetime.fromtimestamp(cursor.timestamp, UTC).isoformat(),
        ),
        deal_events_count=deals,
        deals_count=deals,
        latest_block_number_with_deal=newest[0].block if newest else 0,
    )
