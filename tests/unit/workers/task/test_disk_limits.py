"""An end by a disk limit that only this machine has says nothing of the app."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import EngineUnavailable, NoSuchContainer, TaskDeclined
from protocol.results.error_result import UNCLEAR_END
from tests.unit.workers.assignments import task_id
from tests.unit.workers.sandbox.test_run_app import ENDED, SPEC, Engine
from tests.unit.workers.sandbox.test_scratch import FakeEngine
from workers.data.layout import Layout
from workers.data.outputs import ResultLimits
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.memory import MemoryWatch
from workers.sandbox.run_app import AppRun, run_app
from workers.task import disk_limits
from workers.task.disk_limits import require_promised_disk
from workers.task.outcome import verdict

QUOTA = [
    b"sh: write error: Disk quota exceeded\n",
    b"write /data/x: disk quota exceeded",
    b"[Errno 122] DISK QUOTA EXCEEDED",
]
FULL = [
    b"dd: error writing '/x': No space left on device\n",
    b"open /x: no space left on device",
    b"OSError: [Errno 28] No space left on device: '/x'",
]
BROKEN = [
    b"cat: /iexec_in/x: Input/output error\n",
    b"OSError: [Errno 5] Input/output error: '/data'",
    b"Error: EIO: i/o error, read",
    b"ls: reading directory '.': Structure needs cleaning",
    b"cp: cannot stat '/x': Stale file handle",
]
SEEN, UNSEEN = "unix:///nowhere", "tcp://127.0.0.1:2375"


def context_of(engine: Any, folder: Path) -> Any:
    machine = SimpleNamespace(result_limits=ResultLimits(2**20), settings=SimpleNamespace(scratch_bytes=2**34))
    return SimpleNamespace(engine=engine, machine=machine, layout=Layout(folder))


def declined(folder: Path, host: str, ended: ContainerExit | None) -> bool:
    (folder / "layer").mkdir(exist_ok=True)
    try:
        require_promised_disk(context_of(FakeEngine(host, folder), folder), task_id(1), "id", ended)
    except TaskDeclined as error:
        assert error.cause == UNCLEAR_END
        return True
    return False


def ended(printed: bytes, code: int = 1, **fields: Any) -> list[ContainerExit]:
    """The same words on either stream."""
    plain = ContainerExit(code, **{"out_of_memory": False, "timed_out": False, **fields})
    return [replace(plain, stdout=b"begins\n" + printed), replace(plain, stderr=printed + b"\nends")]


@pytest.mark.parametrize("words", QUOTA)
@pytest.mark.parametrize("host", [SEEN, UNSEEN])
def test_an_app_that_failed_for_a_quota_is_declined_by_every_machine(tmp_path: Path, words: bytes, host: str) -> None:
    assert all(declined(tmp_path, host, each) for each in (*ended(words), *ended(words, 137, timed_out=True)))


@pytest.mark.parametrize("words", BROKEN)
@pytest.mark.parametrize("host", [SEEN, UNSEEN])
def test_an_app_that_failed_for_a_disk_that_fails_is_declined(tmp_path: Path, words: bytes, host: str) -> None:
    assert all(declined(tmp_path, host, each) for each in (*ended(words), *ended(words, 0)))


@pytest.mark.parametrize("words", FULL)
def test_an_app_that_failed_for_a_full_disk_is_declined_where_its_layer_is_not_seen(
    tmp_path: Path, words: bytes
) -> None:
    # Also with exit code 0: a script that cannot write its computed.json may end so.
    assert all(declined(tmp_path, UNSEEN, each) for each in (*ended(words), *ended(words, 0)))
    # Where it is seen the disk is watched, so this was no limit of the machine's.
    assert not any(declined(tmp_path, SEEN, each) for each in ended(words))


@pytest.mark.parametrize("host", [SEEN, UNSEEN])
def test_no_other_end_is_declined_for_the_disk(tmp_path: Path, host: str) -> None:
    others = [None, *ended(b"broken\n"), *ended(FULL[0], 137, out_of_memory=True)]
    assert not any(declined(tmp_path, host, each) for each in others)


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from(QUOTA + FULL))
def test_the_words_count_wherever_they_stand(before: bytes, after: bytes, words: bytes) -> None:
    printed = before + words + after
    says = verdict.says_quota if words in QUOTA else verdict.says_full_disk
    assert says(printed, b"")
    assert says(b"", printed)


def watch(monkeypatch: pytest.MonkeyPatch, engine: Any, folder: Path, *, free_in_layer: int) -> Any:
    """A watch of a container whose layer has so many bytes free, on disks that are all but empty."""
    (folder / "layer").mkdir(exist_ok=True)

    def statvfs(path: Path) -> Any:
        free = free_in_layer if Path(path) == folder / "layer" else 2**40
        return SimpleNamespace(f_bavail=free, f_frsize=1, f_files=0, f_favail=0)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return disk_limits.watch(context_of(engine, folder), task_id(1), "id")


def test_a_quota_of_the_engines_is_a_disk_of_this_machine_that_gets_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(monkeypatch, FakeEngine(SEEN, tmp_path), tmp_path, free_in_layer=2**31).raise_if_over()
    with pytest.raises(TaskDeclined, match="free"):
        watch(monkeypatch, FakeEngine(SEEN, tmp_path), tmp_path, free_in_layer=2**20).raise_if_over()


def test_a_machine_leaves_as_much_free_as_its_operator_says_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "layer").mkdir()
    free = SimpleNamespace(f_bavail=2**31, f_frsize=1, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    context = context_of(FakeEngine(SEEN, tmp_path), tmp_path)
    for least, enough in ((2**30, True), (2**32, False)):
        context.layout = Layout(tmp_path, least)
        for look in (
            disk_limits.watch(context, task_id(1), "id").raise_if_over,
            partial(disk_limits.require_free_space, context, task_id(1)),
        ):
            with nullcontext() if enough else pytest.raises(TaskDeclined, match="free"):
                look()


@pytest.mark.parametrize("error", [EngineUnavailable(what="x", why="busy"), NoSuchContainer(why="id")])
def test_an_engine_that_does_not_name_the_layer_now_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Busy(FakeEngine):
        def inspect(self, container: str) -> dict[str, Any]:
            raise error

    watch(monkeypatch, Busy(SEEN, tmp_path), tmp_path, free_in_layer=0).raise_if_over()


def test_an_app_that_ended_while_the_worker_was_away_is_judged_by_the_disk_too() -> None:
    def nothing(*_: object) -> None:
        """Nothing is to be done."""

    def over() -> None:
        raise TaskDeclined(task=task_id(1), cause="full", why="full")

    engine = Engine(replace(ENDED, exit_code=1))
    engine.find = lambda _: engine.states[0]  # type: ignore[method-assign]
    app = AppRun(
        engine=cast("Any", engine),
        spec=SPEC,
        known_image=lambda: "image",
        fetch_image=lambda: "image",
        pinned=lambda spec: spec,
        gpus=lambda: nullcontext(()),
        room=lambda _: nullcontext(),
        clear=nothing,
        created=nothing,
        found=nothing,
        watch=lambda _: cast("Any", SimpleNamespace(raise_if_over=over)),
        memory=lambda container: MemoryWatch(container, 1, lambda _: {}),
        wait=nothing,
        wait_before_retry=nothing,
    )
    with pytest.raises(TaskDeclined, match="full"):
        run_app(app, resumed=True)
