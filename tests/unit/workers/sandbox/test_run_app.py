"""How an app ended, as the engine comes to know it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from config.settings import read_settings
from protocol.errors import EngineUnavailable, NoSuchContainer
from workers.data import verified
from workers.sandbox import run_app as running
from workers.sandbox.engine.container_state import ContainerState, read_state
from workers.sandbox.engine.run_time import since_start
from workers.sandbox.handed import HandedVariables
from workers.sandbox.images.image_words import NOTHING_ASKED, FittingImage
from workers.sandbox.memory import MemoryWatch
from workers.sandbox.profile import sandbox_of
from workers.sandbox.run_app import ENGINE_LOST, LATE_CAUSE_PAUSES, AppRun, run_app, seconds_needed
from workers.sandbox.spec import LABEL_BOOT, ContainerSpec
from workers.task.outcome.verdict import KILLED

START = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = ContainerState("id", "exited", False, False, KILLED, False, START, START + timedelta(seconds=1))


SPEC = ContainerSpec("app", "image", (), {}, {}, "/in", "/out", cast("Any", None), 60, cast("Any", None))


class Engine:
    """Gives these states one after the other, the last one for ever."""

    host = "unix:///nowhere"
    data_folder = None

    def __init__(
        self, *states: ContainerState, signalled: Sequence[bool | None] = (), tells: bool = True, away: int = 0
    ) -> None:
        self.states, self.waits = [*states], list[float]()
        self.made, self.removed, self.handed = 0, 0, list[HandedVariables | None]()
        #: What it says of each end that it is asked about; then none was sent a signal.
        self.told = [*signalled]
        #: Whether it has events to ask for, and how many waits it does not answer.
        self.tells, self.away = tells, away
        #: Whether it has the container.
        self.here = True

    def create(self, _: object) -> str:
        self.made += 1
        self.here = True
        return "id"

    def remove(self, _: str) -> None:
        self.removed += 1
        self.here = False

    def state(self, _: str) -> ContainerState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def wait(self, _: str, seconds: float) -> bool:
        self.waits.append(seconds)
        if self.away:
            self.away -= 1
            raise EngineUnavailable(what=self.host, why="timed out")
        return True

    def signalled(self, _: str, *, untold: bool) -> bool | None:
        if not self.tells:
            return untold
        return self.told.pop(0) if self.told else False

    def find(self, _: object) -> ContainerState:
        if not self.here:
            raise NoSuchContainer(why="app")
        return self.state("app")

    def printed(self, _: str) -> tuple[bytes, bytes]:
        return b"", b""

    def start(self, _: str, variables: HandedVariables | None = None) -> None:
        """It runs, and is over at once."""
        self.handed.append(variables)

    def require_fit(self, _: str) -> FittingImage:
        return NOTHING_ASKED

    def now(self) -> datetime:
        return START + timedelta(seconds=20)


class Watch:
    """Sees nothing that is too much."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It is over."""

    def raise_if_over(self) -> None:
        """It is not."""


def run(engine: Engine, waited: list[float], *, resumed: bool = False, spec: ContainerSpec = SPEC) -> Any:
    def nothing(*_: object) -> None:
        """Nothing is to be done."""

    app = AppRun(
        engine=cast("Any", engine),
        spec=spec,
        known_image=lambda: "image",
        fetch_image=lambda: "image",
        pinned=lambda spec: spec,
        gpus=lambda: nullcontext(()),
        room=lambda _: nullcontext(),
        clear=nothing,
        created=nothing,
        found=nothing,
        watch=lambda _: cast("Any", Watch()),
        memory=lambda container: MemoryWatch(container, 1, lambda _: {}),
        wait=waited.append,
        wait_before_retry=nothing,
    )
    return run_app(app, resumed=resumed)


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


@pytest.mark.parametrize("code", [0, 1, 143])
@pytest.mark.parametrize("resumed", [False, True], ids=["awaited", "found"])
@pytest.mark.parametrize("told", [True, None], ids=["stopped", "forgotten"])
def test_an_app_that_somebody_stopped_or_whose_end_the_engine_has_forgotten_is_started_over(
    code: int, resumed: bool, told: bool | None
) -> None:
    """The engine, as it shuts down, asks every app to end: one that does so in good order leaves half a result."""
    engine = Engine(replace(ENDED, exit_code=code), signalled=[told, told])
    found = run(engine, [], resumed=resumed)
    assert (found.exit_code, engine.removed, engine.made) == (code, 2, 3 - resumed)


@pytest.mark.parametrize(
    ("tells", "code", "again"),
    [(True, 0, False), (True, 1, False), (False, 0, True), (True, KILLED, True)],
    ids=["own end", "own failure", "an engine without events", "killed"],
)
def test_an_app_that_ended_while_the_engine_was_too_slow_to_answer_is_not_started_a_second_time(
    tells: bool, code: int, again: bool
) -> None:
    """Where nothing tells a slow engine from one that went away and took the app with it, it is."""
    engine = Engine(replace(ENDED, exit_code=code), tells=tells, away=1)
    run(engine, [])
    assert (engine.made, engine.removed) == ((2, 1) if again else (1, 0))


def test_an_app_that_is_stopped_time_and_again_has_no_end_of_its_own() -> None:
    engine = Engine(replace(ENDED, exit_code=0), signalled=[True] * 99)
    with pytest.raises(NoSuchContainer):
        run(engine, [])
    assert engine.made == running.RESTARTS + 1


@pytest.mark.parametrize("late", [replace(ENDED, out_of_memory=True), ENDED], ids=["out of memory", "killed"])
def test_an_app_that_was_killed_is_not_asked_about(late: ContainerState) -> None:
    engine = Engine(late, signalled=[True])
    run(engine, [])
    assert engine.told == [True]


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


@pytest.mark.parametrize(
    ("boot", "again"), [("before the power was lost", True), ("now", False), (None, False)], ids=str
)
def test_an_app_that_ended_before_the_machine_was_started_anew_is_run_again(
    monkeypatch: pytest.MonkeyPatch, boot: str | None, again: bool
) -> None:
    """What it wrote last may not have been on disk: its files are there, and empty, and would be voted for."""
    monkeypatch.setattr(verified, "this_boot", lambda: "now")
    found = replace(ENDED, exit_code=0, boot=boot)
    engine = Engine(found)
    assert seconds_needed(cast("Any", engine), "id", 60.0) == (60.0 if again else 0.0)
    assert run(engine, [], resumed=True).clean
    assert (engine.removed, engine.made) == ((1, 1) if again else (0, 0))


def test_which_start_of_the_machine_a_container_is_of_is_read_from_its_label() -> None:
    state = {"Status": "running", "Running": True, "ExitCode": 0, "Pid": 7, "StartedAt": "2026-01-01T00:00:00Z"}
    answer: dict[str, Any] = {"Id": "id", "State": state | {"FinishedAt": "0001-01-01T00:00:00Z"}}
    for config, boot in (
        ({"Labels": {LABEL_BOOT: "one"}}, "one"),
        ({"Labels": {LABEL_BOOT: ""}}, None),
        ({"Labels": None}, None),
        (None, None),
    ):
        found = read_state(answer | {"Config": config})
        assert (found.process, found.boot) == (7, boot)


RUNNING = replace(ENDED, container="c0ffee", status="running", running=True, finished=None, exit_code=0, process=7)


def test_a_clock_that_was_set_forward_takes_no_time_from_an_app_that_is_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the engine's clock it has had a day; it has run for five seconds, and must not be voted to have failed."""
    monkeypatch.setattr(running, "since_start", lambda *process: {(7, "c0ffee"): 5.0}[process])
    engine = Engine(RUNNING, replace(ENDED, exit_code=0))
    engine.now = lambda: START + timedelta(days=1)  # type: ignore[method-assign]
    assert not run(engine, [], resumed=True).timed_out
    assert engine.waits == [55.0]
    assert seconds_needed(cast("Any", Engine(RUNNING)), "id", 60.0) == 55.0


def test_where_a_containers_process_is_not_seen_its_time_goes_by_the_engines_clock() -> None:
    assert seconds_needed(cast("Any", Engine(RUNNING)), "id", 60.0) == 40.0


def test_a_process_is_told_apart_from_another_of_its_number_and_its_time_counts_from_its_start(tmp_path: Path) -> None:
    for process, container in ((7, "id"), (8, "other")):
        folder = tmp_path / str(process)
        folder.mkdir()
        (folder / "cgroup").write_text(f"0::/system.slice/docker-{container}.scope\n")
        began = int((time.clock_gettime(time.CLOCK_BOOTTIME) - 100) * os.sysconf("SC_CLK_TCK"))
        (folder / "stat").write_text(f"{process} (an (odd) name) S {' '.join(['0'] * 18)} {began} 0 0\n")
    found = since_start(7, "id", tmp_path)
    assert found is not None
    assert found >= 99.9
    assert since_start(8, "id", tmp_path) is None
    assert since_start(9, "id", tmp_path) is None
    assert since_start(0, "id", tmp_path) is None


@pytest.mark.parametrize("error", [NoSuchContainer(why="id"), EngineUnavailable(what="it", why="away")], ids=str)
def test_an_app_of_whose_container_nothing_is_known_needs_all_its_time(error: Exception) -> None:
    def state(_: str) -> ContainerState:
        raise error

    engine = cast("Any", SimpleNamespace(state=state))
    assert seconds_needed(engine, "id", 60.0) == 60.0
    assert seconds_needed(engine, None, 60.0) == 60.0


WAITING = replace(ENDED, status="running", running=True, finished=None, exit_code=0)
LOST = replace(ENDED, exit_code=ENGINE_LOST)
HANDED = replace(SPEC, sandbox=sandbox_of(read_settings()), environment={"KEY": "value"}).hand_over("/launcher")


def test_an_app_is_handed_its_variables_when_it_starts_and_the_engine_has_none() -> None:
    engine = Engine(replace(ENDED, exit_code=0))
    assert run(engine, [], spec=HANDED).exit_code == 0
    assert (HANDED.environment, engine.handed) == ({}, [HandedVariables("/launcher", {"KEY": "value"})])


@pytest.mark.parametrize(
    "found",
    [
        [replace(ENDED, status="created", started=None, finished=None)],
        # It still waited for variables when its worker was killed, and ends for that now, or has ended.
        [WAITING, LOST, LOST],
        [LOST],
    ],
    ids=["not started", "waits for variables", "had no variables"],
)
def test_a_container_whose_worker_was_killed_before_it_sent_the_variables_is_made_anew(
    found: list[ContainerState],
) -> None:
    engine = Engine(*found, replace(ENDED, exit_code=0))
    assert run(engine, [], spec=HANDED, resumed=True).exit_code == 0
    assert (engine.made, engine.removed, engine.handed) == (1, 1, [HANDED.handed])


def test_an_app_that_was_handed_its_variables_before_its_worker_was_killed_goes_on() -> None:
    engine = Engine(WAITING, replace(ENDED, exit_code=3))
    assert run(engine, [], spec=HANDED, resumed=True).exit_code == 3
    assert (engine.made, engine.removed, engine.handed) == (0, 0, [])


def test_an_app_that_itself_ends_with_the_launchers_code_is_believed() -> None:
    engine = Engine(LOST)
    assert run(engine, [], spec=HANDED).exit_code == ENGINE_LOST
    assert engine.made == 1
