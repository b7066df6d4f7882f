"""What becomes of a record, and when the sweep comes again."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.progress import IDLE_VISIT, PROVED, after, next_visit
from pipeline.domain.records import Submission, TaskStage
from protocol.poco.view import ChainView
from protocol.wire import Mode, Step
from tests.unit.pipeline.builders import (
    CONSENSUS,
    CONTRIBUTE_UNTIL,
    PACE,
    START,
    claimed,
    finalized,
    initialized,
    moved,
    replicate,
    revealed,
    task,
    uploaded,
    view,
    voted,
)

VOTERS = (replicate(1), replicate(2), replicate(3))


def test_without_actions_and_news_the_very_same_record_comes_back() -> None:
    record = moved(task(), view())
    assert after(record, view(), [], START + 4, PACE) is record


@pytest.mark.parametrize(
    ("chain", "stage"),
    [
        (view(), TaskStage.RECEIVED),
        (view(initialized()), TaskStage.RUNNING),
        (view(*CONSENSUS), TaskStage.CONSENSUS_REACHED),
        (view(*CONSENSUS, revealed(1)), TaskStage.AT_LEAST_ONE_REVEALED),
        (view(*CONSENSUS, revealed(1), finalized()), TaskStage.COMPLETED),
        (view(initialized(), claimed()), TaskStage.FAILED),
    ],
)
def test_the_stage_follows_the_chain(chain: ChainView, stage: TaskStage) -> None:
    assert moved(task(replicates=VOTERS), chain).stage is stage


def test_a_task_without_workers_is_initialized_only() -> None:
    assert moved(task(), view(initialized())).stage is TaskStage.INITIALIZED


def test_the_stage_shows_a_stored_result_and_a_finalize_under_way() -> None:
    stored = (uploaded(1), *VOTERS[1:])
    assert moved(task(replicates=stored), view(*CONSENSUS, revealed(1))).stage is TaskStage.RESULT_UPLOADED
    chain = view(*CONSENSUS, revealed(1), revealed(2), revealed(3))
    assert moved(task(replicates=stored), chain).stage is TaskStage.FINALIZING


def test_a_contract_view_without_block_numbers_does_not_erase_them() -> None:
    known = moved(task(replicates=VOTERS), view(*CONSENSUS))
    assert known.initialized_block == 0
    read = ChainView(known.task_id, status=view(*CONSENSUS).status, consensus=view(*CONSENSUS).consensus)
    assert moved(known, read, START + 9).consensus_block == known.consensus_block


def test_the_sweep_comes_soon_after_a_change_and_rarely_to_what_waits() -> None:
    handed_over = {"initialize": Submission(0, START)}
    quiet = task(changed_at=START - 10_000, contribution_deadline=10**6, final_deadline=2 * 10**6, sent=handed_over)
    assert next_visit(task(sent=handed_over), view(), START + 1, PACE) == START + 6
    assert next_visit(quiet, view(), START, PACE) == START + 60


def test_a_task_that_only_waits_for_a_worker_is_visited_far_less_often_than_one_at_work() -> None:
    long: dict[str, Any] = {"contribution_deadline": 10**6, "final_deadline": 2 * 10**6}
    waits = task(wants=1, sent={"initialize": Submission(0, START)}, **long)
    assert next_visit(waits, view(initialized()), START, PACE) == START + IDLE_VISIT
    assert next_visit(task(replicates=VOTERS, **long), view(initialized()), START, PACE) <= START + 60
    assert next_visit(waits, view(initialized(), voted(1)), START, PACE) <= START + 60
    assert (
        next_visit(task(sent={"claim": Submission(0, START)}, **long), view(initialized()), START, PACE) <= START + 60
    )


def test_the_sweep_does_not_miss_a_deadline() -> None:
    quiet = task(changed_at=START - 10_000)
    assert next_visit(quiet, view(initialized()), CONTRIBUTE_UNTIL - 7, PACE) == CONTRIBUTE_UNTIL


def test_results_that_are_no_text_are_shown_as_far_as_they_go() -> None:
    done = ChainView(task().task_id, status=view(*CONSENSUS, finalized()).status, results="0x68ff69")
    assert moved(task(), done).results == "h\ufffdi"


def test_what_the_chain_shows_of_a_machine_is_noted_when_it_is_first_seen() -> None:
    record = moved(task(replicates=VOTERS), view(initialized(), voted(1)), START + 5)
    record = moved(record, view(*CONSENSUS, revealed(1)), START + 9)
    steps = [set(item.steps) & PROVED for item in record.replicates]
    assert steps == [{Step.CONTRIBUTED, Step.REVEALED}, {Step.CONTRIBUTED}, {Step.CONTRIBUTED}]
    assert [item.steps[Step.CONTRIBUTED] for item in record.replicates] == [START + 5, START + 9, START + 9]


def test_a_machine_that_worked_alone_has_nothing_to_reveal() -> None:
    alone = replicate(1, mode=Mode.SOLO)
    record = moved(task(trust=1, replicates=[alone]), view(initialized(), voted(1), *CONSENSUS[-1:], revealed(1)))
    assert set(record.replicates[0].steps) & PROVED == {Step.CONTRIBUTED}
