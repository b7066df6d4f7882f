"""What a machine tries with its engine before it signs in."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import Settings
from protocol.errors import BadSetting
from tests.integration.workers.conftest import open_bench
from workers.context import WorkerContext
from workers.data.layout import Layout
from workers.sandbox.rehearsal import rehearse
from workers.sandbox.spec import NANOSECONDS, Limits


def test_an_engine_that_runs_apps_is_found_out_in_a_folder_of_any_name(context: WorkerContext, tmp_path: Path) -> None:
    odd = Layout(tmp_path / "a b:c,d")
    odd.make()
    object.__setattr__(context.machine, "layout", odd)
    for _ in range(2):
        assert "0.06 GiB" in rehearse(context.machine).slot
    assert list((odd.root / "tasks").iterdir()) == []


def test_the_container_of_a_start_that_was_killed_is_not_in_the_way_and_goes(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        # Neither removes what it made, as a process that got SIGKILL.
        broken.setattr("workers.sandbox.engine.container.Engine.remove", lambda *_: None)
        broken.setattr("workers.sandbox.engine.container.Engine.file_exists", killed)
        broken.setattr("workers.sandbox.rehearsal.os.getpid", lambda: 1)
        with pytest.raises(KeyboardInterrupt):
            rehearse(context.machine)
    assert [task for task, _ in context.engine.containers_of(context.machine.wallet)] == ["rehearsal-1"]
    assert "from inside a container" in rehearse(context.machine).network
    assert context.engine.containers_of(context.machine.wallet) == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [(Limits(5_000_000, NANOSECONDS), "6MB"), (Limits(64 * 2**20, 4096 * NANOSECONDS), "CPUs")],
)
def test_limits_that_the_engine_refuses_are_said_before_any_work(
    context: WorkerContext, limits: Limits, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.context.Machine.limits", limits)
    with pytest.raises(BadSetting, match=words):
        rehearse(context.machine)


def test_a_gpu_that_the_engine_cannot_give_to_apps_is_said_before_any_work(settings: Settings) -> None:
    offering = open_bench(settings.model_copy(update={"gpus": "none-of-this-name"}))
    with pytest.raises(BadSetting, match="SLUICE_GPUS"):
        rehearse(offering.machine)
    assert offering.engine.containers_of(offering.machine.wallet) == []
    offering.close()


def test_a_folder_that_the_engine_does_not_see_is_said_before_any_work(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for a worker in a container whose SLUICE_HOME is no folder of the engine's host.
    monkeypatch.setattr("workers.sandbox.engine.container.Engine.file_exists", lambda *_: False)
    context = open_bench(settings)
    with pytest.raises(BadSetting, match="does not see"):
        rehearse(context.machine)
    context.machine.api.close()


def test_limits_come_from_the_engines_own_word(context: WorkerContext) -> None:
    info = context.engine.info()
    assert (context.machine.engine_resources.cpus, context.machine.engine_resources.memory_bytes) == (
        info["NCPU"],
        info["MemTotal"],
    )
