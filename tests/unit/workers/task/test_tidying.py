"""Files that nothing needs are deleted, and none of a task that is under way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.unit.workers.assignments import WORKER_KEY, task_id
from tests.unit.workers.upkeep_world import World
from workers.care import prune
from workers.care.upkeep import TIDY_SECONDS
from workers.task import own_copy
from workers.task.journal import Journal
from workers.task.replicate import Replicate, ReplicateStage


def test_files_that_the_journal_does_not_know_are_deleted_at_start(world: World) -> None:
    known = world.put(ReplicateStage.COMPUTED, number=1)
    world.layout.task(task_id(2)).make()
    world.upkeep.delete_leftovers()
    assert world.layout.task(known).root.exists()
    assert not world.layout.task(task_id(2)).root.exists()


def test_a_task_that_is_taken_while_files_are_tidied_keeps_its_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Journal.all_replicates

    def taken_just_after(journal: Journal) -> list[Replicate]:
        found = list(read(journal))
        world.layout.task(task_id(2)).make()
        return found

    monkeypatch.setattr(Journal, "all_replicates", taken_just_after)
    engine = SimpleNamespace(containers_of=lambda _: [], close=lambda: None)
    monkeypatch.setattr(prune, "Engine", lambda _: engine)
    world.upkeep.delete_leftovers()
    assert world.layout.task(task_id(2)).root.exists()
    world.layout.task(task_id(2)).remove()
    assert list(prune.prune(world.layout, WORKER_KEY.wallet, None, dry_run=False)) == []
    assert world.layout.task(task_id(2)).root.exists()


def test_files_that_a_process_works_on_are_not_tidied_away(world: World) -> None:
    world.layout.task(task_id(2)).make()
    with world.layout.lock(task_id(2), wait=False):
        world.upkeep.delete_leftovers()
        assert world.layout.task(task_id(2)).root.exists()
    world.upkeep.delete_leftovers()
    assert not world.layout.task(task_id(2)).root.exists()


def test_a_look_that_finds_no_old_result_to_unpin_says_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    upkeep, found = world.upkeep, iter([0, 2])
    settings = SimpleNamespace(dataset_disk_bytes=1, worker_ipfs_api="http://127.0.0.1:1", keep_results_days=90.0)
    machine: Any = upkeep._context.machine
    machine.layout, machine.settings = world.layout, settings
    monkeypatch.setattr(own_copy, "unpin_old", lambda *_: next(found))
    with capture_logs() as said:
        upkeep._tidy()
        world.clock += TIDY_SECONDS
        upkeep._tidy()
    assert [entry["results"] for entry in said] == [2]
