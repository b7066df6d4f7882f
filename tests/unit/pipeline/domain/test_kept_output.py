"""How much of what apps print is kept of a task, whoever reports it and however often."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.kept_output import OTHERS_WHOLE, PROVEN_WHOLE, SHORT_TAIL_CHARACTERS, kept_output
from pipeline.domain.records import Replicate, Standing, TaskRecord
from pipeline.domain.replicas import replicate_of_voter
from protocol.wire import LOG_TAIL_CHARACTERS, Step
from tests.unit.pipeline.builders import START, replicate, task, wallet

PRINTED = "x" * (LOG_TAIL_CHARACTERS - 3) + "end"
SHORT = "[The pool has cut 96000 characters here.]\n" + PRINTED[-SHORT_TAIL_CHARACTERS:]
UNPROVEN = [Standing.NEWCOMER, Standing.STAKED]


def shared(*standings: Standing) -> TaskRecord:
    return task(replicates=[replicate(n, standing=standing) for n, standing in enumerate(standings, start=1)])


def kept(record: TaskRecord, item: Replicate, step: Step) -> str:
    output = kept_output(record, item, step, PRINTED, "")
    assert output.stderr == ""
    return output.stdout


@pytest.mark.parametrize("standing", UNPROVEN)
def test_an_unproven_machine_that_says_the_app_has_failed_leaves_a_short_tail_that_says_it_was_cut(
    standing: Standing,
) -> None:
    record = shared(standing)
    assert kept(record, record.replicates[0], Step.FAILED) == SHORT
    assert kept_output(record, record.replicates[0], Step.FAILED, "why", "short").stdout == "why"
    assert kept(record, record.replicates[0], Step.COMPUTED) == PRINTED


def test_a_proven_machines_report_is_kept_whole_whoever_was_asked_before() -> None:
    record = shared(*UNPROVEN * 20, Standing.PROVEN)
    assert kept(record, record.replicates[-1], Step.FAILED) == PRINTED


def test_a_voter_that_the_record_did_not_know_counts_behind_those_it_knows() -> None:
    record = shared(*[Standing.PROVEN] * PROVEN_WHOLE)
    voter = replicate_of_voter(record, wallet(99), START)
    assert kept(record, voter, Step.COMPUTED) == SHORT
    assert kept(shared(Standing.PROVEN), voter, Step.COMPUTED) == PRINTED


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(Standing), st.sampled_from([Step.COMPUTED, Step.FAILED])), max_size=60))
def test_however_many_report_on_a_task_the_sum_is_bounded(reports: list[tuple[Standing, Step]]) -> None:
    record = shared(*(standing for standing, _ in reports))
    sizes = [len(kept(record, item, step)) for item, (_, step) in zip(record.replicates, reports, strict=True)]
    assert sum(size > len(SHORT) for size in sizes) <= PROVEN_WHOLE + OTHERS_WHOLE
    assert max(sizes, default=0) <= LOG_TAIL_CHARACTERS
