"""What needs the operator though all parts are well."""

from __future__ import annotations

from dataclasses import replace

from pipeline.domain.condition.attention import needs, unservable
from pipeline.domain.condition.facts import BrokerFacts, CertificateFacts, Facts, NodeFacts, QueueFacts
from pipeline.domain.explain import Candidates, Kind
from pipeline.domain.records import TaskRecord, WorkerRecord
from protocol.poco.tags import GPU_BIT, make_tag
from protocol.types import BlockNumber, NRlc, Timestamp, Wallet, Wei
from tests.unit.pipeline.builders import START, task, worker

NODE = NodeFacts(BlockNumber(1), Timestamp(1), Wei(1), Wei(1), Wallet("0x" + "a" * 40), NRlc(100), NRlc(0))
WELL = Facts(now=0.0, node=NODE, broker=BrokerFacts("app", True, queues=(QueueFacts("dead", 0, 0),)))


def found(waiting: list[TaskRecord], *workers: WorkerRecord) -> list[tuple[int, str]]:
    candidates = {Kind.of(each): Candidates.of(each, workers, START, START - 60) for each in waiting}
    return [(each.tasks, each.why) for each in unservable(waiting, candidates, START)]


def parts(facts: Facts, *, paid: bool = True, quarantined: int = 0) -> list[str]:
    return [need.part for need in needs(facts, quarantined, [], paid=paid)]


def test_a_task_that_waits_for_a_busy_machine_or_one_that_cools_down_needs_nobody() -> None:
    assert found([task(trust=1, wants=1)], worker(1, rest_until=START + 99)) == []
    assert found([task(trust=1, wants=1)]) == [], "that no machine has signed in is told otherwise"


def test_tasks_that_no_machine_can_take_are_told_by_what_they_demand() -> None:
    gpu = task(trust=1, wants=1, tag=make_tag(GPU_BIT))
    ((number, why),) = found([gpu, task(trust=1, wants=1), gpu], worker(1))
    assert (number, "GPU" in why) == (2, True)
    ((_, why),) = found([task(trust=5, wants=3)], worker(1, stake=12))
    assert "free stake" in why


def test_stake_is_low_below_a_tenth_or_where_there_is_none_for_a_price() -> None:
    def of(free: int, locked: int, *, paid: bool = True) -> list[str]:
        return parts(replace(WELL, node=replace(NODE, stake=NRlc(free), locked=NRlc(locked))), paid=paid)

    assert of(10, 90) == []
    assert of(9, 91) == ["stake"]
    assert of(0, 0) == ["stake"]
    assert of(0, 0, paid=False) == [], "a pool that sells for nothing locks nothing"


def test_dead_letters_and_quarantined_rows_are_told() -> None:
    dead = BrokerFacts("app", True, queues=(QueueFacts("dead", 2, 1), QueueFacts("pipeline", 7, 0)))
    assert parts(WELL) == []
    assert parts(replace(WELL, broker=dead), quarantined=1) == ["dead letters", "quarantine"]


def test_a_certificate_is_told_of_in_its_last_two_weeks_or_in_the_last_tenth_of_a_short_life() -> None:
    day = 86400.0

    def told(days: float, left: float) -> list[str]:
        shown = (CertificateFacts("pool.example:443", 0.0, days * day), CertificateFacts("b:5671", 0.0, 9999 * day))
        return [
            need.says for need in needs(replace(WELL, now=(days - left) * day, certificates=shown), 0, [], paid=True)
        ]

    assert told(397, 15) == []
    assert [says.split(";")[0] for says in told(397, 13.5)] == ["the certificate of pool.example:443 ends in 13 days"]
    # One that is renewed with a third of its life left is never told of.
    assert told(90, 30) == told(90, 10) == told(6, 2) == []
    assert "ends in 14 hours" in told(6, 0.59)[0]
    assert told(397, -1) == [], "that one has ended is told by /health"
