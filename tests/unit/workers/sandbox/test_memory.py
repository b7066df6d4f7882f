"""Whose memory ran out: an app is blamed only where its own limit was reached, also where any OOM killer is counted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import NoSuchContainer, TaskDeclined, TaskFailure
from protocol.results.error_result import MACHINE_MEMORY, Failure
from tests.unit.workers.assignments import task_id
from tests.unit.workers.task.test_slots import machine
from workers.sandbox import memory
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.memory import Counters, MemoryWatch, is_own_limit, read_counters
from workers.sandbox.spec import EngineResources, read_engine_resources
from workers.slots import RESERVED_BYTES
from workers.task.outcome.own_end import require_own_end

GIB = 2**30
ID = "ab" * 32
PARENTS = ("system.slice", "docker")


def write(folder: Path, *, oom: int, kills: int, ours: int = 0) -> None:
    """The kernel's counters of a cgroup: of itself with all below it, and (`ours`) of failures at its own limit."""
    folder.mkdir(parents=True, exist_ok=True)
    rest = "low 0\nhigh 0\nmax 7\n"
    (folder / "memory.events").write_text(f"{rest}oom {oom}\noom_kill {kills}\noom_group_kill 0\n")
    (folder / "memory.events.local").write_text(f"{rest}oom {ours}\noom_kill 0\noom_group_kill 0\n")


class Cgroups:
    """The cgroups of a machine with one container, which an engine has put below `parent`."""

    def __init__(self, root: Path, parent: str) -> None:
        self.root, self.parent = root, root / parent
        self.own = self.parent / (f"docker-{ID}.scope" if parent == "system.slice" else ID)
        write(self.parent, oom=5, kills=9, ours=1)
        write(self.own, oom=0, kills=0)

    @contextmanager
    def watch(self, cgroups: int = 2) -> Iterator[MemoryWatch]:
        def inspect(container: str) -> dict[str, Any]:
            raise NoSuchContainer(why=container)

        with MemoryWatch(ID, cgroups, inspect, self.root) as watch:
            yield watch


@pytest.fixture(params=PARENTS)
def seen(tmp_path: Path, request: pytest.FixtureRequest) -> Cgroups:
    return Cgroups(tmp_path, request.param)


def test_an_app_that_reached_its_limit_is_to_blame(seen: Cgroups) -> None:
    with seen.watch() as watch:
        write(seen.own, oom=1, kills=1)
    assert watch.is_own_limit()


def test_an_app_that_the_machines_oom_killer_killed_is_not(seen: Cgroups) -> None:
    with seen.watch() as watch:
        write(seen.own, oom=0, kills=1)
        # Another container has reached its limit meanwhile.
        write(seen.parent, oom=6, kills=11, ours=1)
    assert not watch.is_own_limit()


def test_of_an_app_whose_counters_went_with_it_those_of_its_parent_tell(seen: Cgroups) -> None:
    with seen.watch() as watch:
        write(seen.parent, oom=6, kills=10, ours=1)
    shutil.rmtree(seen.own)
    assert watch.is_own_limit()


@pytest.mark.parametrize(("oom", "ours"), [(5, 1), (6, 2)], ids=["the machine's memory", "the parent's own limit"])
def test_of_an_app_whose_counters_went_with_it_no_other_cause_is_held_against_it(
    seen: Cgroups, oom: int, ours: int
) -> None:
    with seen.watch() as watch:
        write(seen.parent, oom=oom, kills=10, ours=ours)
    shutil.rmtree(seen.own)
    assert not watch.is_own_limit()


def test_a_container_in_a_place_of_its_own_is_found_by_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cgroup/mine" / ID
    write(place, oom=0, kills=0)
    (tmp_path / "proc/77").mkdir(parents=True)
    (tmp_path / "proc/77/cgroup").write_text(f"0::/mine/{ID}\n")
    monkeypatch.setattr(memory, "_PROCESSES", tmp_path / "proc")
    with MemoryWatch(ID, 2, lambda _: {"State": {"Pid": 77}}, tmp_path / "cgroup") as watch:
        write(place, oom=1, kills=1)
    assert watch.is_own_limit()


def test_where_no_cgroup_is_seen_nobody_is_blamed(tmp_path: Path) -> None:
    with MemoryWatch(ID, 2, lambda _: {"State": {"Pid": 0}}, tmp_path) as watch:
        pass
    assert not watch.is_own_limit()


def test_the_word_of_an_engine_on_version_1_is_of_the_apps_own_limit(tmp_path: Path) -> None:
    with Cgroups(tmp_path, "docker").watch(cgroups=1) as watch:
        pass
    assert watch.is_own_limit()


def test_of_an_app_that_ended_while_nobody_watched_nothing_is_known() -> None:
    assert not MemoryWatch(ID, 2, lambda _: {}).is_own_limit()
    assert MemoryWatch(ID, 1, lambda _: {}).is_own_limit()


@pytest.mark.parametrize(
    ("own", "beside", "blamed"),
    [
        (Counters(oom=2, kills=1), 0, True),
        (Counters(oom=0, kills=1), 3, False),
        (Counters(oom=0, kills=0), 1, True),
        (Counters(oom=0, kills=0), 0, False),
        (Counters(oom=0, kills=0), None, False),
        (None, None, False),
    ],
)
def test_the_apps_own_counters_tell_first(own: Counters | None, beside: int | None, *, blamed: bool) -> None:
    assert is_own_limit(own, beside) is blamed


@pytest.mark.parametrize("text", ["", "oom 1\n", "oom x\noom_kill 1\n", "<html>", "oom 1 2\noom_kill 0\n"])
def test_what_are_no_counters_are_none(text: str) -> None:
    assert read_counters(text) is None


def test_an_engine_says_which_cgroups_its_machine_has() -> None:
    info = {"NCPU": 1, "MemTotal": GIB}
    assert [read_engine_resources({**info, **more}).cgroups for more in ({}, {"CgroupVersion": "1"})] == [1, 1]
    assert read_engine_resources({**info, "CgroupVersion": "2"}).cgroups == 2


KILLED_FOR_MEMORY = ContainerExit(137, out_of_memory=True, timed_out=False)
PLENTY = EngineResources(cpus=4, memory_bytes=64 * GIB)


def test_an_app_that_reached_the_promised_limit_has_failed() -> None:
    with pytest.raises(TaskFailure) as caught:
        require_own_end(machine(PLENTY), task_id(1), KILLED_FOR_MEMORY)
    assert caught.value.cause == Failure.OUT_OF_MEMORY
    assert not isinstance(caught.value, TaskDeclined)


def test_an_app_that_was_killed_below_its_limit_is_declined() -> None:
    killed = ContainerExit(137, out_of_memory=True, timed_out=False, own_limit=False)
    with pytest.raises(TaskDeclined) as caught:
        require_own_end(machine(PLENTY), task_id(1), killed)
    assert caught.value.cause == MACHINE_MEMORY


@pytest.mark.parametrize(("beside", "kept"), [(RESERVED_BYTES, True), (RESERVED_BYTES - 1, False)])
def test_a_machine_keeps_the_pools_promise_only_beside_what_the_system_takes(beside: int, *, kept: bool) -> None:
    made = machine(None, slots=2)
    made.__dict__["engine_resources"] = EngineResources(4, 2 * made.pool.memory_per_slot + beside)
    assert made.keeps_memory_promise is kept
