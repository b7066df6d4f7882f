"""What an open task waits for is said in words, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.explain import Candidates, explain
from pipeline.domain.match import Capacity, Obstacle, for_proven, obstacle
from pipeline.domain.records import ChainFacts, ReplicateState, Submission, TaskRecord, WorkerRecord
from pipeline.flow.reasons import reasons
from protocol.poco.tags import GPU_BIT, make_tag
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import Contract, Hash32, NRlc, TaskId, Wei
from tests.unit.pipeline.builders import (
    CONSENSUS,
    CONTRIBUTE_UNTIL,
    FINAL,
    PACE,
    START,
    claimed,
    finalized,
    held,
    initialized,
    replicate,
    revealed,
    task,
    uploaded,
    view,
    voted,
    worker,
)

ACTIVE = view(initialized())
TDX = Hash32("0x" + "0" * 63 + "9")
CHALLENGE = Contract("0x" + "c4" * 20)
POOR = ChainFacts(2, NRlc(100), Wei(0), funded=False)


def why(record: TaskRecord, chain: ChainView, *workers: WorkerRecord, now: float = START + 3) -> str:
    found = explain(record, chain, Candidates.of(record, workers, now, START - 60), now, PACE)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("record", "workers", "words"),
    [
        (task(trust=1, wants=1), [], "No machine has signed in"),
        (task(trust=1, wants=1), [worker(1, banned=True)], "is banned"),
        (task(trust=1, wants=1), [worker(1, lost=True), worker(2, seen_at=0.0)], "has pinged lately"),
        (task(trust=1, wants=1, tag=TDX, challenge=CHALLENGE), [worker(1)], "TEE TDX"),
        (task(trust=1, wants=1, tag=make_tag(GPU_BIT)), [worker(1)], "GPU"),
        (task(trust=1, wants=1), [worker(1, facts=POOR, checked_at=0.0)], "not read from the chain yet"),
        (
            task(trust=1, wants=1),
            [worker(1, facts=POOR), worker(2, banned=True)],
            "no machine that could take it has native token",
        ),
        (task(trust=5, wants=3), [worker(1, stake=12)], "needs 30 nRLC of free stake; the most a machine has is 12"),
        (
            task(trust=1, wants=1, replicates=[replicate(1, ReplicateState.FAILED, cause="X.")]),
            [worker(1)],
            "was asked: 1 x X",
        ),
        (task(trust=1, wants=1), [worker(1, rest_until=START + 33.0)], "the first for another 30 s"),
        (task(trust=1, wants=1), [worker(1, held=(held(1),))], "are busy"),
        (task(trust=1, wants=1), [worker(1)], "about to be given"),
    ],
)
def test_why_nobody_takes_a_task_is_said(record: TaskRecord, workers: list[WorkerRecord], words: str) -> None:
    assert words.lower() in why(record, ACTIVE, *workers).lower()


def test_a_deal_with_callback_whose_result_has_no_callback_data_says_so() -> None:
    record = task(callback=Contract("0x" + "ca" * 20), replicates=[uploaded(1), replicate(2), replicate(3)])
    assert "no callback data" in why(record, view(*CONSENSUS))


def test_every_step_on_the_way_says_what_it_waits_for() -> None:
    votes = [replicate(1), replicate(2), replicate(3)]
    stored = task(replicates=[uploaded(1), *votes[1:]])
    assert "capacity in the scheduler's lane" in why(task(), view())
    assert "submitted to the scheduler's lane" in why(task(sent={"initialize": Submission(0, START)}), view())
    assert "failed 3 times: reverted" in why(task(failed={"initialize": 3}, why="reverted"), view())
    assert "votes are awaited (2 at work, 1 voted)" in why(task(replicates=votes), view(initialized(), voted(1)))
    assert "too few votes" in why(task(), ACTIVE, now=CONTRIBUTE_UNTIL)
    assert "final deadline is over" in why(task(), ACTIVE, now=FINAL)
    assert "not stored yet" in why(task(replicates=votes), view(*CONSENSUS))
    assert "3 of 3 winners have not revealed" in why(stored, view(*CONSENSUS))
    all_revealed = view(*CONSENSUS, revealed(1), revealed(2), revealed(3))
    assert "finalize" in why(stored, all_revealed)


def test_winners_that_do_not_reveal_are_told_with_the_time_they_have_though_the_result_is_not_stored_either() -> None:
    """A machine that votes and never reveals brings no result: that it was asked to upload it is not what is wrong."""
    votes = [replicate(1), replicate(2), replicate(3)]
    said = why(task(replicates=votes), view(*CONSENSUS))
    assert "3 of 3 winners have not revealed yet; they can until " in said
    assert "if none has by then, the task is reopened. The result is not stored yet" in said
    one = why(task(replicates=votes), view(*CONSENSUS, revealed(1)))
    assert ("2 of 3 winners have not revealed yet; they can until " in one, "reopened" in one) == (True, False)
    whole = why(task(replicates=votes), view(*CONSENSUS, revealed(1), revealed(2), revealed(3)))
    assert whole.startswith("The result is not stored yet")


def test_what_is_over_waits_for_nothing() -> None:
    assert explain(task(open=False), view(initialized(), claimed()), Candidates(), START, PACE) is None
    assert explain(task(open=False), view(*CONSENSUS, finalized()), Candidates(), START, PACE) is None


def test_what_the_chain_has_ended_and_the_scheduler_has_not_noted_is_told() -> None:
    assert "chain has it FAILED" in why(task(), view(initialized(), claimed()))
    assert "chain has it COMPLETED" in why(task(), view(*CONSENSUS, finalized()))


@given(
    status=st.sampled_from([TaskStatus.UNSET, TaskStatus.ACTIVE, TaskStatus.REVEALING]),
    now=st.integers(START, FINAL + 100),
    wants=st.integers(0, 3),
    trust=st.sampled_from([1, 5]),
    orphaned=st.booleans(),
    tag=st.sampled_from([Hash32("0x" + "0" * 64), TDX, Hash32("0x" + "ff" * 32)]),
    workers=st.lists(st.builds(worker, st.integers(1, 9), banned=st.booleans()), max_size=4),
)
def test_whatever_waits_has_a_reason(
    status: TaskStatus, now: int, wants: int, trust: int, orphaned: bool, tag: Hash32, workers: list[WorkerRecord]
) -> None:
    record = task(trust=trust, wants=wants, orphaned=orphaned, tag=tag)
    assert why(record, replace(ACTIVE, status=status), *workers, now=now)


@given(
    trust=st.sampled_from([1, 5]),
    newcomers=st.integers(0, 2),
    had=st.sets(st.integers(1, 6)),
    workers=st.lists(
        st.builds(
            worker,
            st.integers(1, 6),
            banned=st.booleans(),
            lost=st.booleans(),
            seen_at=st.sampled_from([0.0, START]),
            rest_until=st.sampled_from([0.0, START + 33.0, START + 44.0]),
            held=st.sampled_from([(), (held(9),), (held(1),)]),
            facts=st.builds(
                ChainFacts,
                st.sampled_from([1, 20]),
                st.sampled_from([NRlc(0), NRlc(29), NRlc(100)]),
                st.just(Wei(1)),
                funded=st.sampled_from([True, True, False]),
            ),
        ),
        unique_by=lambda machine: machine.wallet,
    ),
)
def test_machines_are_looked_at_once_for_all_tasks_of_a_kind_as_if_for_each(
    trust: int, newcomers: int, had: set[int], workers: list[WorkerRecord]
) -> None:
    asked = [replicate(number, ReplicateState.FAILED, cause="X.") for number in had]
    record = task(trust=trust, wants=1, newcomers=newcomers, replicates=asked)
    now, seen_after = START + 3.0, START - 60.0
    capacities = [Capacity.of(replace(item, lost=item.lost or item.seen_at < seen_after)) for item in workers]
    each = [(obstacle(record, capacity, now), capacity) for capacity in capacities]
    # Of another task of its kind, which nobody had.
    other = replace(record, task_id=TaskId("0x" + "f" * 64), replicates=(), backup=for_proven(record))
    found = Candidates.of(other, workers, now, seen_after).nearest(record)
    if found is None:
        assert not workers
        return
    stands, nearest = found
    assert (stands is None) == any(it is None for it, _ in each)
    if stands is not None:
        assert stands == max(it for it, _ in each if it is not None)
        alike = [capacity for it, capacity in each if it is stands]
        if stands is Obstacle.STAKE:
            assert nearest.stake == max(capacity.stake for capacity in alike)
        if stands is Obstacle.COOLING_DOWN:
            assert nearest.worker.rest_until == min(capacity.worker.rest_until for capacity in alike)


def test_a_bag_costs_one_look_at_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    real = Capacity.of

    def counted(machine: WorkerRecord, order: int = 0) -> Capacity:
        looked.append(machine.name)
        return real(machine, order)

    monkeypatch.setattr(Capacity, "of", counted)
    machines = [worker(number, held=(held(9),)) for number in range(300)]
    bag = [replace(task(trust=5, wants=3), task_id=TaskId(f"0x{number:064x}")) for number in range(100)]
    store = SimpleNamespace(
        workers=SimpleNamespace(any_proven=lambda _: True, nearest=lambda *_: machines),
        chain=SimpleNamespace(logs=SimpleNamespace(of_tasks=lambda _: {})),
        pause=SimpleNamespace(state=lambda: None),
        hold=SimpleNamespace(state=lambda: None),
    )
    settings = SimpleNamespace(
        worker_lost_seconds=60.0,
        block_time=1.0,
        spend_depth=0,
        proven_share=0.0,
        state="latest",
        enclave_sms_url=None,
    )
    found = reasons(store, settings, bag, START + 3.0)  # type: ignore[arg-type]  # stand in
    assert len(found) == len(bag)
    assert len(looked) == len(machines)
