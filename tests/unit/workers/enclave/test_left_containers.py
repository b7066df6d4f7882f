"""The container of an app in an enclave has secrets for as long as it exists: it goes as soon as it has ended, whoever
is killed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from config.settings import read_settings
from protocol.errors import EngineUnavailable, PoolUnavailable
from protocol.results.digest import file_digest
from protocol.types import TaskId
from tests.unit.sms.world import TASK, WORKER
from tests.unit.workers.assignments import WORKER_KEY, assignment
from tests.unit.workers.enclave.machine import ANSWER_SHA256, ENDED, Bench
from workers import machine as machine_process
from workers.care import left_enclaves
from workers.enclave import surrounding, tdx
from workers.sandbox.engine.container_state import ContainerExit, ContainerState
from workers.sandbox.run_app import ENGINE_LOST
from workers.sandbox.spec import container_name
from workers.task.outcome import app_end
from workers.task.replicate import ReplicateStage

APP = container_name("test", WORKER.wallet, TASK)
RUNNING = replace(ENDED, status="running", running=True)


class Killed(BaseException):
    """As `kill -9`: nothing runs after it."""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.journal.close()


def test_an_apps_container_is_gone_before_anything_else_is_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []
    whole = surrounding._run

    def run(service: Any, *given: Any) -> ContainerExit:
        seen.append((service.name, APP in bench.removed))
        return whole(service, *given)

    monkeypatch.setattr(surrounding, "_run", run)
    assert bench.replicate().stage is ReplicateStage.COMPUTED
    assert seen == [("pre-compute", False), ("post-compute", True)]


def test_the_container_of_an_app_that_could_not_be_watched_to_its_end_goes_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(app: Any, *, resumed: bool) -> NoReturn:
        bench._run(app, resumed=resumed)
        raise EngineUnavailable(what="the engine", why="away")

    monkeypatch.setattr("workers.sandbox.run_app.run_app", fails)
    assert bench.replicate().stage is ReplicateStage.FAILED
    assert APP in bench.removed


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", ["keep", "_remove"])
def test_a_machine_killed_between_the_apps_end_and_its_removal_removes_it_and_runs_no_app_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, moment: str, after: bool
) -> None:
    whole = getattr(app_end, moment)

    def killed(*given: Any, **more: Any) -> NoReturn:
        if after:
            whole(*given, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(app_end, moment, killed)
        with pytest.raises(Killed):
            bench.replicate()
    bench.removed.clear()
    # The engine still has it, as it ended.
    assert bench.replicate().stage is ReplicateStage.COMPUTED
    assert {"container", APP} <= {*bench.removed}
    assert len(bench.resumed) == 1
    found = bench.journal.find(TASK)
    assert found is not None
    assert found.digest == file_digest(ANSWER_SHA256)
    assert not bench.layout.task(TASK).ended.exists()


def test_an_engine_that_is_away_for_a_moment_lets_it_go_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_end, "backoff", lambda _: 0.0)
    answers: list[Exception | None] = [EngineUnavailable(what="the engine", why="away"), None]

    def remove(container: str) -> None:
        if container == APP and answers and (trouble := answers.pop(0)) is not None:
            raise trouble
        bench.removed.append(container)

    bench.context.engine.remove = remove
    assert bench.replicate().stage is ReplicateStage.COMPUTED
    assert APP in bench.removed


class Engine:
    """An engine with containers of one machine, of which all but the running ones are as `state` says."""

    def __init__(self, containers: list[tuple[TaskId, str]], state: ContainerState) -> None:
        self.containers, self.found, self.removed = containers, state, list[str]()

    def containers_of(self, _: object) -> list[tuple[TaskId, str]]:
        return self.containers

    def state(self, _: str) -> ContainerState:
        return self.found

    def printed(self, _: str) -> tuple[bytes, bytes]:
        return b"said", b""

    def signalled(self, _: str, *, untold: bool) -> bool | None:
        return False

    def info(self) -> dict[str, int]:
        return {"NCPU": 2, "MemTotal": 2**33}

    def inspect(self, _: str) -> dict[str, object]:
        return {}

    def remove(self, container: str) -> None:
        self.removed.append(container)

    def close(self) -> None:
        """Nothing is open."""


def left_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch, state: ContainerState) -> Engine:
    """A machine that was killed while the app of a task for an enclave ran, and that has a standard task too."""
    standard = bench.journal.add(assignment(2), 0.0)
    bench.journal.mark_running(standard.task_id, "standard", 0.0)
    bench.journal.add(bench.assignment(), 0.0)
    bench.journal.mark_running(TASK, "app", 0.0)
    bench.layout.task(TASK).make()
    found = [(TASK, "app"), (TASK, "post-compute"), (standard.task_id, "standard")]
    engine = Engine(found, state)
    monkeypatch.setattr(left_enclaves, "Engine", lambda _: engine)
    return engine


@pytest.mark.parametrize(
    ("state", "removed", "end"),
    [
        (ENDED, {"app", "post-compute"}, ContainerExit(0, False, False, b"said")),
        (replace(ENDED, exit_code=3), {"app", "post-compute"}, ContainerExit(3, False, False, b"said")),
        (replace(ENDED, exit_code=ENGINE_LOST), {"app", "post-compute"}, None),
        (replace(ENDED, status="created"), {"app", "post-compute"}, None),
        (RUNNING, {"post-compute"}, None),
    ],
    ids=["ended", "failed", "lost with the engine", "never started", "running"],
)
def test_the_next_start_removes_what_was_left_and_keeps_how_the_app_ended(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    state: ContainerState,
    removed: set[str],
    end: ContainerExit | None,
) -> None:
    engine = left_behind(bench, monkeypatch, state)
    left_enclaves.clear(bench.layout, WORKER.wallet, None)
    assert {*engine.removed} == removed
    assert app_end.kept(bench.layout.task(TASK)) == end


def test_nothing_of_a_machine_that_runs_is_removed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = left_behind(bench, monkeypatch, ENDED)
    with bench.layout.lock(TASK, wait=False):
        left_enclaves.clear(bench.layout, WORKER.wallet, None)
    assert engine.removed == []


def test_an_engine_that_is_away_at_the_start_is_no_reason_not_to_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = left_behind(bench, monkeypatch, ENDED)

    def away(_: object) -> NoReturn:
        raise EngineUnavailable(what="the engine", why="away")

    engine.containers_of = away  # type: ignore[method-assign]
    with capture_logs() as logged:
        left_enclaves.clear(bench.layout, WORKER.wallet, None)
    assert [line["action"] for line in logged] == ["enclaves_left"]


def test_sessions_left_in_memory_go_whatever_the_machine_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tdx, "MEMORY", tmp_path)
    (tmp_path / "sluice-session-killed").mkdir()
    layout: Any = SimpleNamespace(journal=tmp_path / "none")
    left_enclaves.clear(layout, WORKER.wallet, None)
    assert list(tmp_path.iterdir()) == []


def test_that_is_the_first_thing_a_start_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[object] = []

    def unreachable(*_: object) -> NoReturn:
        assert cleared == [WORKER_KEY.wallet]
        raise PoolUnavailable(what="pool", why="away")

    monkeypatch.setattr(machine_process, "load_key", lambda _: WORKER_KEY)
    monkeypatch.setattr(left_enclaves, "clear", lambda _, wallet, __: cleared.append(wallet))
    monkeypatch.setattr(machine_process, "_prepared", unreachable)
    with pytest.raises(PoolUnavailable), machine_process.signed_in(read_settings(home=tmp_path)):
        pytest.fail("it was signed in")
