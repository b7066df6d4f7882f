"""An app that fails under a sandbox that is stricter than the pool promises says nothing of the app."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.settings import read_settings
from protocol.errors import CannotStart, TaskFailure
from protocol.poco.tags import GPU_BIT, make_tag
from protocol.results.error_result import (
    MACHINE_FAILED,
    UNCLEAR_END,
    Failure,
    blames_task,
    cause_code,
    counts_against_machine,
)
from protocol.types import ZERO_HASH
from protocol.wire import Report, Step
from tests.unit.workers.assignments import CHAIN_ID, SCHEDULER_KEY, WORKER_KEY, WORKERPOOL, assignment, task_id
from workers.data.layout import Layout
from workers.data.outputs import ResultLimits
from workers.fitness import doctor
from workers.sandbox.engine.container import Engine
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.network import listed_apps
from workers.sandbox.profile import sandbox_of
from workers.sandbox.spec import Limits
from workers.task.compute import compute
from workers.task.journal import Journal
from workers.task.replicate import ReplicateStage

#: Settings of a machine that gives apps less than promised, or runs them by another runtime; and of others.
STRICTER: list[dict[str, str]] = [
    {"sandbox": "strict"},
    {"sandbox": "isolated"},
    {"app_network": "none"},
    {"sandbox": "isolated", "app_network": "none"},
    {"app_domains": "data.example.org,api.example.com:8443"},
    {"sandbox": "isolated", "app_domains": "data.example.org"},
]
PROMISED: list[dict[str, str]] = [{}, {"sandbox": "compat"}, {"app_network": "public"}, {"app_network": "open"}]
#: What an engine with `userns-remap` says of itself.
REMAPPED: dict[str, object] = {"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}
RESULT = {"deterministic-output-path": "/iexec_out/r"}


def ends(code: int = 0, *, memory: bool = False, late: bool = False) -> ContainerExit:
    return ContainerExit(code, memory, late, stdout=b"network is unreachable\n")


def raises(error: Exception) -> Callable[[], ContainerExit]:
    def end() -> ContainerExit:
        raise error

    return end


FULL = TaskFailure(task=task_id(1), status=Failure.APP.status, cause=Failure.APP, why="it held too much")
#: Ends of an app in its container that left no result, and what is voted where the promise is kept.
FAILURES: dict[str, tuple[Callable[[], ContainerExit], Failure]] = {
    "exit code": (lambda: ends(1), Failure.APP),
    "a signal": (lambda: ends(139), Failure.APP),
    "memory": (lambda: ends(137, memory=True), Failure.OUT_OF_MEMORY),
    "time": (lambda: ends(137, late=True), Failure.APP_TIMEOUT),
    "no result": (ends, Failure.COMPUTED_FILE),
    "no program": (raises(CannotStart(why="permission denied")), Failure.APP),
    "too much disk": (raises(FULL), Failure.APP),
}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Any]:
    layout = Layout(tmp_path / "worker")
    layout.make()
    journal = Journal(layout.journal)
    sent: list[Report] = []
    machine = SimpleNamespace(
        wallet=WORKER_KEY.wallet,
        pool=SimpleNamespace(scheduler=SCHEDULER_KEY.wallet, chain_id=CHAIN_ID, workerpool=WORKERPOOL),
        downloads=None,
        images=None,
        settings=SimpleNamespace(worker_name="test", scratch_bytes=1),
        limits=Limits(2**30, 10**9),
        memory_per_slot=2**30,
        keeps_memory_promise=True,
        result_limits=ResultLimits(2**20),
    )
    yield SimpleNamespace(
        layout=layout,
        journal=journal,
        now=time.time,
        machine=machine,
        sent=sent,
        ledger=SimpleNamespace(why_not=lambda _: None),
        engine=SimpleNamespace(data_folder=None, info=dict, remove=lambda _: None),
        reports=SimpleNamespace(send=lambda _, report: sent.append(report), later=lambda act: act()),
    )
    journal.close()


def run(
    context: Any,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    end: Callable[[], ContainerExit],
    computed: dict[str, str] | None = None,
    *,
    made: bool = True,
    tag: str = ZERO_HASH,
) -> Any:
    """The replicate of an app that ended so in its container, if one was `made`."""

    def run_app(app: Any, *, resumed: bool) -> ContainerExit:
        assert not resumed
        if made:
            app.created("container")
        if computed is not None:
            outputs = context.layout.task(task_id(1)).outputs
            (outputs / "r").write_text("x")
            (outputs / "computed.json").write_text(json.dumps(computed))
        return end()

    context.machine.sandbox = sandbox_of(read_settings(**settings))
    monkeypatch.setattr("workers.data.inputs.fetch", lambda *_: None)
    monkeypatch.setattr("workers.sandbox.run_app.run_app", run_app)
    monkeypatch.setattr("workers.sandbox.network.listed_apps.confine", lambda *_: None)
    compute(context, assignment(1, tag=tag))
    return context.journal.find(task_id(1))


def words(settings: dict[str, str]) -> str:
    return " and ".join(f"SLUICE_{name.upper()}={value}" for name, value in settings.items())


def require_declined(context: Any, found: Any, settings: dict[str, str]) -> None:
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    assert words(settings) in found.cause
    assert context.sent[-1].step is Step.FAILED
    assert not blames_task(found.cause)
    assert not counts_against_machine(found.cause)


@pytest.mark.parametrize("settings", STRICTER, ids=words)
@pytest.mark.parametrize("how", FAILURES)
def test_an_app_that_fails_where_it_has_less_than_promised_is_declined_with_the_setting_as_the_reason(
    context: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], how: str
) -> None:
    require_declined(context, run(context, monkeypatch, settings, FAILURES[how][0]), settings)


@pytest.mark.parametrize("settings", STRICTER, ids=words)
@pytest.mark.parametrize(("code", "late"), [(1, False), (137, True)])
def test_a_result_of_an_app_that_failed_after_it_counts_only_where_it_had_what_is_promised(
    context: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], code: int, late: bool
) -> None:
    require_declined(context, run(context, monkeypatch, settings, lambda: ends(code, late=late), RESULT), settings)


@pytest.mark.parametrize("settings", STRICTER, ids=words)
def test_a_result_that_points_to_nothing_is_declined_there_too(
    context: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    found = run(context, monkeypatch, settings, ends, {"deterministic-output-path": "/iexec_out/none"})
    require_declined(context, found, settings)


@pytest.mark.parametrize("settings", PROMISED, ids=words)
@pytest.mark.parametrize("how", FAILURES)
def test_an_app_that_fails_with_all_that_is_promised_is_voted_to_have_failed(
    context: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], how: str
) -> None:
    found = run(context, monkeypatch, settings, FAILURES[how][0])
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, FAILURES[how][1])


@pytest.mark.parametrize("how", FAILURES)
def test_an_app_that_fails_on_an_engine_with_user_namespaces_is_declined_since_they_are_not_promised(
    context: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    context.engine.info = lambda: REMAPPED
    found = run(context, monkeypatch, {}, FAILURES[how][0])
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    assert "user namespaces" in found.cause
    assert not blames_task(found.cause)
    assert not counts_against_machine(found.cause)


def test_a_result_on_an_engine_with_user_namespaces_is_voted_for(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context.engine.info = lambda: REMAPPED
    found = run(context, monkeypatch, {}, ends, RESULT)
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)


@pytest.mark.parametrize("how", FAILURES)
def test_an_app_that_fails_with_a_gpu_is_declined_since_no_kind_of_gpu_is_promised(
    context: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    context.machine.gpus = ("0",)
    found = run(context, monkeypatch, {}, FAILURES[how][0], tag=make_tag(GPU_BIT))
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    assert "GPU" in found.cause
    assert not blames_task(found.cause)
    assert not counts_against_machine(found.cause)


def test_a_result_of_an_app_with_a_gpu_is_voted_for(context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context.machine.gpus = ("0",)
    found = run(context, monkeypatch, {}, ends, RESULT, tag=make_tag(GPU_BIT))
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)


def test_a_task_that_asks_for_a_gpu_is_declined_before_anything_is_done_where_there_is_none(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.machine.gpus = ()
    found = run(context, monkeypatch, {}, raises(AssertionError()), tag=make_tag(GPU_BIT))
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, MACHINE_FAILED)
    assert "SLUICE_GPUS" in found.cause


@pytest.mark.parametrize("settings", [*STRICTER, *PROMISED], ids=words)
def test_a_result_is_voted_for_under_every_sandbox(
    context: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    found = run(context, monkeypatch, settings, ends, RESULT)
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)


@pytest.mark.parametrize("settings", [*STRICTER, *PROMISED], ids=words)
def test_what_fails_before_there_is_a_container_is_voted_under_every_sandbox(
    context: Any, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    found = run(context, monkeypatch, settings, raises(CannotStart(why="no command specified")), made=False)
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, Failure.APP)


def test_a_machine_that_cannot_resolve_a_name_of_its_allow_list_declines_the_task_with_the_name(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(_: str) -> list[str]:
        raise OSError("Temporary failure in name resolution")

    def run_app(app: Any, **_: object) -> ContainerExit:
        app.pinned(app.spec)
        raise AssertionError

    monkeypatch.setattr(listed_apps, "resolve", resolve)
    context.machine.sandbox = sandbox_of(read_settings(app_domains="data.example.org"))
    monkeypatch.setattr("workers.data.inputs.fetch", lambda *_: None)
    monkeypatch.setattr("workers.sandbox.run_app.run_app", run_app)
    compute(context, assignment(1))
    found = context.journal.find(task_id(1))
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, MACHINE_FAILED)
    assert "SLUICE_APP_DOMAINS: data.example.org cannot be resolved" in found.cause
    assert not blames_task(found.cause)


@pytest.mark.parametrize("settings", [*STRICTER, *PROMISED], ids=words)
def test_the_doctor_says_what_a_stricter_machine_gives_up(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    monkeypatch.setattr(
        Engine, "info", lambda _: {"Runtimes": {"runsc": {"path": "/opt/runsc"}, "runc": {}}, "DefaultRuntime": "runc"}
    )
    found = doctor.sandbox(read_settings(docker_host="unix:///nowhere", **settings))
    assert found.ok
    assert found.numbers["votes_failures"] is (settings in PROMISED)
    assert ("earns nothing" in found.says) is (settings in STRICTER)
    assert settings in PROMISED or words(settings) in found.says
    assert ("runsc gives apps a kernel of their own (/opt/runsc)" in found.says) is (
        settings.get("sandbox") == "isolated"
    )


def test_the_doctor_says_what_user_namespaces_of_the_engine_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "info", lambda _: REMAPPED)
    found = doctor.sandbox(read_settings(docker_host="unix:///nowhere"))
    assert found.ok
    assert (found.numbers["user_namespaces"], found.numbers["votes_failures"]) == (True, False)
    assert "an ordinary user outside" in found.says
    assert "an engine with user namespaces (userns-remap, rootless) is stricter" in found.says
    assert "earns nothing" in found.says
