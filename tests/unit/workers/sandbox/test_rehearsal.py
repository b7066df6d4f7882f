"""What killed starts left is neither in the way of the next one nor kept, and a container that vanishes is no test."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from config.settings import read_settings
from protocol.errors import BadSetting, CannotStart, EngineTrouble, NoSuchContainer
from tests.unit.workers.assignments import WORKER_KEY, WORKERPOOL, task_id
from workers.data.layout import Layout
from workers.sandbox import rehearsal
from workers.sandbox.profile import sandbox_of
from workers.sandbox.rehearsal import TASK, rehearse
from workers.sandbox.spec import LABEL_TASK, LABEL_WALLET, ContainerSpec, Limits


class Engine:
    """Has containers by id, and loses the first `vanish` that are made here."""

    host = "unix:///nowhere"
    platform = ("linux", "amd64")

    def __init__(self, vanish: int = 0, containers: dict[str, str] | None = None) -> None:
        self.vanish, self.containers, self.made = vanish, containers or {}, list[ContainerSpec]()
        self.tried = 0

    def info(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """There is nothing to close."""

    def make_image(self, *_: object) -> None:
        """It has the image."""

    def containers_of(self, wallet: str) -> list[tuple[str, str]]:
        assert wallet == WORKER_KEY.wallet
        return [(task, container) for container, task in self.containers.items()]

    def create(self, spec: ContainerSpec) -> str:
        self.made.append(spec)
        self.containers["made"] = spec.labels[LABEL_TASK]
        return "made"

    def file_exists(self, container: str, _: str) -> bool:
        if len(self.made) <= self.vanish:
            raise NoSuchContainer(why=container)
        return True

    def start(self, container: str) -> None:
        assert container in self.containers
        self.tried += 1

    def remove(self, container: str) -> None:
        self.containers.pop(container, None)


def machine_of(home: Path) -> Any:
    layout = Layout(home)
    layout.make()
    return SimpleNamespace(
        wallet=WORKER_KEY.wallet,
        gpus=(),
        limits=Limits(2**30, 10**9),
        sandbox=sandbox_of(read_settings(app_network="none")),
        layout=layout,
        settings=SimpleNamespace(worker_name="test", docker_host=None, api_url="http://127.0.0.1"),
        pool=SimpleNamespace(workerpool=WORKERPOOL),
    )


def rehearsed(monkeypatch: pytest.MonkeyPatch, home: Path, engine: Engine) -> Any:
    machine = machine_of(home)
    monkeypatch.setattr(rehearsal, "Engine", lambda _: engine)
    rehearse(machine)
    return machine


def test_its_container_is_named_after_the_process_and_labelled_as_this_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine()
    machine = rehearsed(monkeypatch, tmp_path, engine)
    (spec,) = engine.made
    own = f"{TASK}-{os.getpid()}"
    assert spec.name.endswith(own)
    assert (spec.labels[LABEL_WALLET], spec.labels[LABEL_TASK]) == (WORKER_KEY.wallet, own)
    assert (engine.tried, engine.containers) == (1, {})
    assert [*(machine.layout.root / "tasks").iterdir(), *machine.layout.locks.iterdir()] == []


def test_a_container_that_vanishes_once_is_made_again_and_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(vanish=1)
    rehearsed(monkeypatch, tmp_path, engine)
    assert (len(engine.made), engine.tried) == (2, 1)


def test_a_start_whose_container_vanishes_each_time_does_not_count_as_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineTrouble, match="removed as soon as it is made"):
        rehearsed(monkeypatch, tmp_path, Engine(vanish=100))


def test_an_engine_that_executes_no_program_is_refused_before_apps_are_voted_to_have_failed_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E.g. one whose data are on a disk that is mounted noexec: its words are those for an app's missing program."""

    def denied(_: str) -> None:
        raise CannotStart(why='exec: "/sluice-rehearsal": permission denied')

    engine = Engine()
    monkeypatch.setattr(engine, "start", denied)
    with pytest.raises(BadSetting, match="permission denied"):
        rehearsed(monkeypatch, tmp_path, engine)
    assert engine.containers == {}
    # For this processor there is no program of ours: that it is missing says that all else was accepted.
    engine.platform = ("linux", "riscv64")
    rehearsed(monkeypatch, tmp_path, engine)


# Each example deletes folders by a program: twenty take a second.
@drawn(max_examples=20)
@given(
    killed=st.sets(st.integers(1, 2**22), max_size=2),
    alive=st.sets(st.integers(1, 2**22), max_size=2),
    reused=st.booleans(),
    with_container=st.booleans(),
)
def test_what_killed_starts_left_is_removed_and_what_belongs_to_others_stays(
    tmp_path_factory: pytest.TempPathFactory, killed: set[int], alive: set[int], reused: bool, with_container: bool
) -> None:
    home = tmp_path_factory.mktemp("home")
    layout = machine_of(home).layout
    alive -= {os.getpid()}
    killed -= alive
    names = [f"{TASK}-{number}" for number in {*killed, *alive, *([os.getpid()] if reused else [])}]
    containers = {f"id of {name}": name for name in (*names, task_id(1)) if with_container}
    for name in (*names, task_id(1)):
        layout.task(name).make()
    engine = Engine(containers=containers)
    with pytest.MonkeyPatch.context() as patched:
        held = [layout.lock(f"{TASK}-{number}", wait=False) for number in alive]
        for lock in held:
            assert lock.__enter__()
        rehearsed(patched, home, engine)
        for lock in held:
            lock.__exit__(None, None, None)
    stay = {task_id(1), *(f"{TASK}-{number}" for number in alive)}
    assert {path.name for path in (layout.root / "tasks").iterdir()} == stay
    assert set(engine.containers.values()) == (stay if with_container else set())
    assert engine.tried == 1
