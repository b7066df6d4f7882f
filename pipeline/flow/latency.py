"""How long tasks take from their match to each step on chain, counted when the scheduler first knows of the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from config.metrics import TASK_BLOCKS, TASK_SECONDS
from pipeline.domain.records import TaskRecord
from protocol.types import BlockNumber


def count(changes: Sequence[tuple[TaskRecord, TaskRecord]], now: float) -> None:
    """Count the steps that tasks have taken between two stored records, (before, after). `now`: Unix seconds.

    A step whose block is not known, because a contract view told of it, is not counted.
    """
    for before, after in changes:
        for step, block in steps_taken(before, after):
            TASK_BLOCKS.labels(step).observe(block - after.matched_block)
            TASK_SECONDS.labels(step).observe(max(0.0, now - after.matched_at))


def steps_taken(before: TaskRecord, after: TaskRecord) -> Iterator[tuple[str, BlockNumber]]:
    """Steps that `before` had not taken and `after` has, with their blocks. Pure.

    A step that a reorg only moved to another block is left out.
    """
    for step, was, now in (
        ("initialize", before.initialized_block, after.initialized_block),
        ("consensus", before.consensus_block, after.consensus_block),
        ("finalize", before.finalized_block, after.finalized_block),
    ):
        if was is None and now is not None:
            yield step, now
