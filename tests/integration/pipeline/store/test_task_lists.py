"""What the lists of tasks tell of the time that tasks have left, in the real database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.api.readings import stage_readings
from pipeline.domain.records import TaskRecord, TaskStage
from pipeline.store.client import Store
from protocol.types import BlockNumber, Timestamp
from tests.integration.pipeline.rows import some_tasks

HOUR, DAY = 3600, 24 * 3600
#: Block time of the match of the long task; the short one was matched an hour later.
MATCHED = 1_700_000_000


@pytest.mark.parametrize("stage", [TaskStage.RUNNING, TaskStage.CONSENSUS_REACHED])
def test_a_short_task_that_has_little_time_left_is_seen_behind_an_older_one_of_days(
    store: Store, stage: TaskStage
) -> None:
    before = stage == TaskStage.RUNNING
    long, short, ended = some_tasks(store, 3)

    def timed(task: TaskRecord, block: int, matched: int, until: int) -> TaskRecord:
        # The other deadline says nothing of this stage.
        contribution, final = (until, until + 100 * DAY) if before else (matched + 1, until)
        return replace(
            task,
            stage=stage,
            matched_block=BlockNumber(block),
            matched_at=Timestamp(matched),
            contribution_deadline=Timestamp(contribution),
            final_deadline=Timestamp(final),
        )

    changed = [
        timed(long, 10, MATCHED, MATCHED + 10 * DAY),
        timed(short, 20, MATCHED + HOUR, MATCHED + HOUR + 600),
        replace(timed(ended, 5, MATCHED - 10 * DAY, MATCHED - DAY), stage=TaskStage.FAILED, open=False),
    ]
    assert len(store.tasks.save(changed)) == 3
    now = MATCHED + HOUR + 540
    (used,) = (
        sample.value
        for family in stage_readings(store.lists.count_by_stage(), now)
        for sample in family.samples
        if sample.name == "sluice_oldest_task_window_used"
    )
    assert used == 0.9
    assert store.lists.count_by_stage()[stage].oldest == MATCHED
