"""Votes that suffice by our reckoning, and a contract that has seen no consensus in them.

The contract looks for a consensus when a vote comes, and only for the result of that vote.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.domain.actions import Want
from pipeline.domain.match import match
from pipeline.domain.records import Replicate, ReplicateState, Standing, TaskRecord
from pipeline.domain.replicas import votes
from protocol.poco import weights
from protocol.poco.view import ChainView, TaskStatus
from tests.unit.pipeline.builders import (
    LIE,
    START,
    agreed,
    decided,
    initialized,
    moved,
    reopened,
    replicate,
    task,
    view,
    voted,
    worker,
)

#: Two votes whose weights, when these machines were asked, made 12: enough for trust 5. Since then the first one was
#: wrong elsewhere and lost a third of its score, so that the contract counts less.
LIGHTER = (replicate(1, weight=4), replicate(2, weight=3))
#: Trust 5, and a lie that won against three newcomers; its machines did not reveal it.
OUTVOTED = (replicate(8), *(replicate(number) for number in (1, 2, 3)), replicate(9, weight=32))
REOPENED = (initialized(), voted(8, LIE), voted(1), voted(2), voted(3), voted(9, LIE), agreed(LIE), reopened())
CASES = pytest.mark.parametrize(
    ("replicates", "chain"),
    [(LIGHTER, view(initialized(), voted(1), voted(2))), (OUTVOTED, view(*REOPENED))],
    ids=["a weight fell", "reopened"],
)


@CASES
def test_one_more_machine_is_asked_since_only_a_vote_can_bring_the_consensus(
    replicates: tuple[Replicate, ...], chain: ChainView
) -> None:
    record = task(replicates=replicates)
    assert chain.status is TaskStatus.ACTIVE
    (group,) = votes(record, chain).values()
    assert weights.consensus_reached(record.trust, weights.group_weight(group), 0), "by what is known of them here"
    assert [item.count for item in decided(record, chain) if isinstance(item, Want)] == [1]


@CASES
def test_it_is_given_to_a_machine_and_to_one_only(replicates: tuple[Replicate, ...], chain: ChainView) -> None:
    saved = moved(task(replicates=replicates), chain)
    (found,) = match([saved], [worker(20), worker(21)])
    assert len(found.workers) == 1
    assert found.wants == 0


@CASES
def test_while_a_vote_is_still_to_come_no_other_is_wanted(replicates: tuple[Replicate, ...], chain: ChainView) -> None:
    record = task(replicates=(*replicates, replicate(7, ReplicateState.STARTED)))
    assert not wanted(record, chain)


@CASES
def test_a_machine_never_right_before_that_takes_its_time_is_not_waited_for_alone(
    replicates: tuple[Replicate, ...], chain: ChainView
) -> None:
    slow = replace(replicate(7, ReplicateState.STARTED), standing=Standing.NEWCOMER)
    record = task(replicates=(*replicates, slow))
    (found,) = wanted(record, chain, START + 15)
    assert (found.count, found.backup) == (1, True)


def wanted(record: TaskRecord, chain: ChainView, now: float = START + 4) -> list[Want]:
    return [item for item in decided(record, chain, now) if isinstance(item, Want) and item.count]
