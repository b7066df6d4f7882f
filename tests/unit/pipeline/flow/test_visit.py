"""What a visit finds that the stored logs lack, by asking the contract."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.domain.records import TaskRecord
from pipeline.flow import advance, visit
from pipeline.flow.visit import MISSED_EVENT_SECONDS
from protocol.poco import events
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import TaskId
from tests.unit.pipeline.builders import (
    PACE,
    START,
    TASK,
    agreed,
    finalized,
    initialized,
    reopened,
    replicate,
    revealed,
    seen,
    task,
    view,
    voted,
)

VOTED = (initialized(), voted(1), agreed())
LATER = START + MISSED_EVENT_SECONDS + 1.0


def found(record: TaskRecord, logs: Sequence[events.Event], contract: ChainView) -> ChainView | None:
    """The contract's view, where a visit believes it; None: the logs are believed."""
    read = [seen(event, number, START) for number, event in enumerate(logs)]
    stored = SimpleNamespace(read=lambda _: ({TASK: read}, set[TaskId]()))
    scheduler: Any = SimpleNamespace(
        clock=lambda: LATER,
        store=SimpleNamespace(chain=SimpleNamespace(logs=stored)),
        hub=SimpleNamespace(tasks=lambda asked: [contract for _ in asked]),
    )
    return visit._contract_views(scheduler, [record]).get(TASK)


@pytest.mark.parametrize(
    ("logs", "contract"),
    [
        (VOTED, (*VOTED, reopened())),
        (VOTED, (*VOTED, reopened(), voted(2))),
        ((*VOTED, voted(2)), (*VOTED, reopened(), voted(2), agreed())),
        (VOTED, (*VOTED, revealed(1))),
        (VOTED, (*VOTED, revealed(1), finalized())),
    ],
    ids=["reopened", "and voted on again", "and agreed on again", "revealed", "finalized"],
)
def test_a_missed_event_is_found(logs: Sequence[events.Event], contract: Sequence[events.Event]) -> None:
    record, true = task(replicates=[replicate(1)]), view(*contract)
    believed = found(record, logs, true)
    assert believed is not None
    assert (believed.status, believed.contributions) == (true.status, true.contributions)
    assert found(record, contract, view(*logs)) is None, "a node that is behind is not believed"


def test_a_reopening_that_the_logs_lack_is_asked_for_at_each_visit_and_nothing_is_decided_without_an_answer() -> None:
    """By its logs the task still waits for reveals: by them the machine that took it over would be stopped."""
    record = task(reopened=True, heard_at=LATER, replicates=[replicate(1), replicate(2)])
    believed = found(record, VOTED, view(*VOTED, reopened()))
    assert believed is not None
    assert believed.status is TaskStatus.ACTIVE
    # A reorg took it back.
    assert found(record, VOTED, view(*VOTED)) is not None
    for known, decisions in (({}, 0), ({TASK: believed}, 1)):
        assert len(advance._decide(scheduler_with(record), [TASK], known)) == decisions


def scheduler_with(record: TaskRecord) -> Any:
    """A scheduler that has this task and no log of its reopening."""
    logs = SimpleNamespace(
        read_rows=lambda rows: ({TASK: [seen(event, n, START) for n, event in enumerate(VOTED)]}, list(rows))
    )
    return SimpleNamespace(
        clock=lambda: LATER,
        chain_time=SimpleNamespace(read=lambda _: None),
        timeouts=PACE,
        settings=SimpleNamespace(worker_lost_seconds=60.0, sweep_seconds=5.0),
        store=SimpleNamespace(
            tasks=SimpleNamespace(load_with_logs=lambda _: [(record, [])]),
            chain=SimpleNamespace(logs=logs),
            sweeps=SimpleNamespace(outages=lambda *_: (0.0, LATER)),
        ),
        begins=lambda: SimpleNamespace(nothing=False),
    )
