"""What is counted of tasks for `/metrics`: time from the match to each step, and what keeps tasks from machines."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily

from config import topology
from pipeline.api.readings import queue_readings, slot_readings, stage_readings
from pipeline.domain.condition.facts import QueueFacts
from pipeline.domain.match import Match
from pipeline.domain.records import TaskStage
from pipeline.flow import latency
from pipeline.flow.machines import unmatched
from pipeline.store.machine.census import Capacity
from pipeline.store.task.lists import StageCount, Window
from protocol.poco.tags import GPU_BIT, TDX_BITS, make_tag
from protocol.types import ZERO_HASH, BlockNumber, Hash32, TaskId, Timestamp
from tests.unit.pipeline.builders import START, task, wallet, worker


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def samples(families: list[GaugeMetricFamily]) -> dict[tuple[str, str], float]:
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_step_is_timed_when_the_scheduler_first_knows_its_block() -> None:
    names = ("sluice_task_blocks_sum", "sluice_task_seconds_sum", "sluice_task_blocks_count")
    before = [value(name, step="consensus") for name in names]
    known = task(matched_block=BlockNumber(10), initialized_block=BlockNumber(11))
    latency.count([(known, replace(known, consensus_block=BlockNumber(13)))], START + 4)
    assert [value(name, step="consensus") - was for name, was in zip(names, before, strict=True)] == [3, 4, 1]


def test_a_block_that_a_reorg_moved_is_no_further_step() -> None:
    known = task(initialized_block=BlockNumber(11))
    assert not list(latency.steps_taken(known, replace(known, initialized_block=BlockNumber(12))))
    assert not list(latency.steps_taken(known, replace(known, initialized_block=None)))


def test_several_steps_that_are_learnt_at_once_are_each_timed() -> None:
    known = task()
    then = replace(
        known, initialized_block=BlockNumber(2), consensus_block=BlockNumber(3), finalized_block=BlockNumber(4)
    )
    assert dict(latency.steps_taken(known, then)) == {"initialize": 2, "consensus": 3, "finalize": 4}


def test_a_task_without_a_machine_is_counted_by_the_obstacle_that_may_pass_soonest() -> None:
    poor = worker(1, stake=0)
    tagged = task(task_id=TaskId("0x" + "01" * 32), tag=Hash32("0x" + "0" * 61 + "100"))
    assert unmatched.reasons([task()], [], [poor]) == {"stake": 1}
    assert unmatched.reasons([task(), tagged], [], [poor]) == {"stake": 1, "tag": 1}
    assert unmatched.reasons([task()], [], [poor, worker(2)]) == {"busy": 1}
    assert unmatched.reasons([task()], [], []) == {"no_machine": 1}


def test_a_task_that_got_a_machine_is_not_counted_and_of_many_only_the_most_urgent_are() -> None:
    assert not unmatched.reasons([task()], [Match(task(), (worker(1),))], [worker(1)])
    many = [task(task_id=TaskId(f"0x{number:064x}")) for number in range(500)]
    assert unmatched.reasons(many, [], []) == {"no_machine": unmatched.TASKS}


def test_the_oldest_task_of_a_stage_is_shown_by_its_age_and_by_the_part_of_its_time_that_is_over() -> None:
    stages = {
        TaskStage.RUNNING: StageCount(2, Timestamp(START), (Window(Timestamp(START), Timestamp(START + 200)),)),
        TaskStage.RECEIVED: StageCount(0),
    }
    found = samples(stage_readings(stages, START + 50))
    assert (found["sluice_tasks", "RUNNING"], found["sluice_tasks", "RECEIVED"]) == (2, 0)
    assert found["sluice_oldest_task_age_seconds", "RUNNING"] == 50
    assert found["sluice_oldest_task_window_used", "RUNNING"] == 0.25
    # A stage without tasks has no oldest one: 0 would look like one that came just now.
    assert ("sluice_oldest_task_age_seconds", "RECEIVED") not in found


def test_of_the_oldest_task_and_the_one_that_ends_first_the_one_that_has_used_more_of_its_time_is_shown() -> None:
    days, minutes = (
        Window(Timestamp(START), Timestamp(START + 10_000)),
        Window(Timestamp(START), Timestamp(START + 100)),
    )
    for windows in ((days, minutes), (minutes, days)):
        stages = {TaskStage.RUNNING: StageCount(2, Timestamp(START), windows)}
        assert samples(stage_readings(stages, START + 90))["sluice_oldest_task_window_used", "RUNNING"] == 0.9


def test_the_lanes_queue_is_named_without_its_wallet() -> None:
    scheduler = wallet(7)
    queues = [QueueFacts(topology.lane_queue_name(scheduler), 3, 1, 7.0), QueueFacts(topology.DEAD_QUEUE, 5, 0)]
    found = samples(queue_readings(queues, scheduler))
    assert found["sluice_queue_ready", "lane"] == 3
    assert found["sluice_queue_unacknowledged", "lane"] == 1
    assert found["sluice_queue_age_seconds", "lane"] == 7
    assert found["sluice_dead_letters", ""] == 5


def test_slots_are_counted_by_the_names_of_tags_whatever_tags_machines_make_up() -> None:
    gpu, both, odd = make_tag(GPU_BIT), make_tag(GPU_BIT, *TDX_BITS), make_tag(1 << 77)
    capacity = {
        ZERO_HASH: Capacity(machines=2, busy=1, held=1, free=3),
        gpu: Capacity(machines=1, busy=1, held=2, free=0),
        both: Capacity(machines=1, busy=0, held=0, free=5),
        odd: Capacity(machines=1, busy=0, held=0, free=1),
    }
    found = samples(slot_readings(capacity))
    assert {tag: found["sluice_slots", tag] for tag in ("any", "gpu", "tdx", "scone", "gramine")} == {
        "any": 12,
        "gpu": 7,
        "tdx": 5,
        "scone": 0,
        "gramine": 0,
    }
    assert [found["sluice_slots_free", tag] for tag in ("any", "gpu", "tdx")] == [9, 5, 5]
    assert sum(name == "sluice_slots" for name, _ in found) == 5
