"""How an app ended, as the engine comes to know it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from protocol.errors import EngineUnavailable, NoSuchContainer
from workers.sandbox.engine.container_state import ContainerState
from workers.sandbox.memory import MemoryWatch
from workers.sandbox.run_app import ENGINE_LOST, LATE_CAUSE_PAUSES, AppRun, run_app, seconds_needed
from workers.sandbox.spec import ContainerSpec
from workers.task.verdict import KILLED

START = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = ContainerState("id", "exited", False, False, KILLED, False, START, START + timedelta(seconds=1))


SPEC = ContainerSpec("app", "image", (), {}, {}, "/in", "/out", cast("Any", None), 60, cast("Any", None))


class Engine:
    """Gives these states one after the other, the last one for ever."""

    host = "unix:///nowhere"

    def __init__(self, *states: ContainerState) -> None:
        self.states = [*states]

    def create(self, _: object) -> str:
        return "id"

    def state(self, _: str) -> ContainerState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def wait(self, *_: object) -> bool:
        return True

    def printed(self, _: str) -> tuple[bytes, bytes]:
        return b"", b""

    def start(self, _: str) -> None:
        """It runs, and is over at once."""

    require_fit = start

    def now(self) -> datetime:
        return START + timedelta(seconds=20)


def run(engine: Engine, waited: list[float]) -> Any:
    def nothing(*_: object) -> None:
        """Nothing is to be done."""

    app = AppRun(
        engine=cast("Any", engine),
        spec=SPEC,
        known_image=lambda: "image",
        fetch_image=lambda: "image",
        pinned=lambda spec: spec,
        gpus=lambda: nullcontext(()),
        clear=nothing,
        created=nothing,
        found=nothing,
        watch=lambda _: cast("Any", nullcontext(SimpleNamespace(raise_if_over=nothing))),
        memory=lambda container: MemoryWatch(container, 1, lambda _: {}),
        wait=waited.append,
        wait_before_retry=nothing,
    )
    return run_app(app, resumed=False)


def test_memory_that_ran_out_is_the_cause_also_if_the_engine_hears_of_it_after_the_end() -> None:
    waited: list[float] = []
    assert run(Engine(ENDED, ENDED, replace(ENDED, out_of_memory=True)), waited).out_of_memory
    assert waited == list(LATE_CAUSE_PAUSES[:2])


def test_an_app_that_was_killed_for_another_cause_is_not_waited_for_without_end() -> None:
    waited: list[float] = []
    ended = run(Engine(ENDED), waited)
    assert (ended.exit_code, ended.out_of_memory, waited) == (KILLED, False, list(LATE_CAUSE_PAUSES))


@pytest.mark.parametrize("code", [0, 1, 143])
def test_any_other_end_is_taken_at_once(code: int) -> None:
    waited: list[float] = []
    assert run(Engine(replace(ENDED, exit_code=code)), waited).exit_code == code
    assert waited == []


@pytest.mark.parametrize(
    ("state", "needed"),
    [
        (ENDED, 0.0),
        (replace(ENDED, exit_code=0), 0.0),
        (replace(ENDED, status="running", running=True, finished=None), 40.0),
        (replace(ENDED, status="created", started=None, finished=None), 60.0),
        (replace(ENDED, status="removing"), 60.0),
        (replace(ENDED, exit_code=ENGINE_LOST), 60.0),
    ],
    ids=["killed", "ended", "running", "created", "being removed", "lost with the engine"],
)
def test_what_an_app_needs_yet_goes_by_what_became_of_its_container(state: ContainerState, needed: float) -> None:
    assert seconds_needed(cast("Any", Engine(state)), "id", 60.0) == needed


@pytest.mark.parametrize("error", [NoSuchContainer(why="id"), EngineUnavailable(what="it", why="away")], ids=str)
def test_an_app_of_whose_container_nothing_is_known_needs_all_its_time(error: Exception) -> None:
    def state(_: str) -> ContainerState:
        raise error

    engine = cast("Any", SimpleNamespace(state=state))
    assert seconds_needed(engine, "id", 60.0) == 60.0
    assert seconds_needed(engine, None, 60.0) == 60.0
