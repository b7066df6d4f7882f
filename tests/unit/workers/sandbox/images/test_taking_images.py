"""What becomes of an image between its registry and the engine: room for it, its record, and an engine that refuses."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.errors import EngineTrouble, EngineUnavailable, TaskDeclined
from protocol.results.error_result import UNCLEAR_END
from protocol.types import TaskId
from tests.unit.workers.assignments import LATER, assignment, task_id
from workers.data.layout import Layout
from workers.data.registry import Blob, Manifest, RegistryPolicy
from workers.sandbox import disk, engine_disk
from workers.sandbox.images import image as images
from workers.sandbox.images import image_words
from workers.sandbox.images.image import AppImage, ImageRules
from workers.sandbox.images.image_store import ImageStore, engine_name
from workers.sandbox.images.image_words import fitting, why_unfit
from workers.task.deadline import TaskDeadline

IMAGE = "registry.example/app:1"
LAYER = Blob("sha256:" + "ab" * 32, 1_000, gzip=True)
CONFIG = Blob("sha256:" + "cd" * 32, 10)
UNPACKED = 5_000


class Registry:
    """Has one image, of one layer."""

    def __init__(self, *_: object) -> None:
        """There is nothing to keep."""

    def manifest(self, _: str) -> Manifest:
        return Manifest("sha256:" + "ef" * 32, CONFIG, (LAYER,))

    def config(self, _: Manifest) -> bytes:
        return b"{}"

    def layer(self, blob: Blob, target: Path, _: object) -> None:
        target.write_bytes(bytes(blob.size))


class Engine:
    """Takes images, unless `trouble` is raised."""

    host, platform = "unix:///nowhere", ("linux", "amd64")

    def __init__(self, data_folder: Path, trouble: Exception | None = None) -> None:
        self.data_folder, self.trouble, self.images, self.records = data_folder, trouble, set[str](), list[int]()
        self.removed = list[str]()

    def has_image(self, name: str) -> bool:
        return name in self.images

    def remove_image(self, name: str) -> bool:
        self.removed.append(name)
        self.images.discard(name)
        return True

    def load(self, _: Iterator[bytes], **__: object) -> None:
        self.records.append(len(list((self.data_folder / "images").glob("*.json"))))
        if self.trouble is not None:
            raise self.trouble
        self.images.add(engine_name(CONFIG.digest))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.make()
    return made


def fetch(layout: Layout, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> str:
    monkeypatch.setattr(images, "RegistryImage", Registry)
    monkeypatch.setattr(images, "read_config", lambda _: (("linux", "amd64"), ("sha256:" + "12" * 32,)))
    monkeypatch.setattr(images, "unpacked_size", lambda *_: UNPACKED)
    deadline = TaskDeadline(TaskId(task_id(1)), LATER, time.time, lambda: False, sleep=lambda _: None)
    rules = ImageRules(RegistryPolicy(max_bytes=2**30, pool_max_bytes=2**30))
    given: Any = engine
    return AppImage(given, layout, rules, assignment(1, image=IMAGE), deadline).fetch()


def records(layout: Layout) -> int:
    return len(list((layout.root / "images").glob("*.json")))


def test_an_image_has_its_record_before_the_engine_has_it(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is killed between the two would leave an image on the engine that nothing ever removes."""
    engine = Engine(layout.root)
    name = fetch(layout, monkeypatch, engine)
    assert (engine.records, engine.images) == ([1], {name})
    ImageStore(layout.root).shrink(engine, 0, "")  # type: ignore[arg-type]
    assert engine.images == set()


def test_an_image_that_the_engine_does_not_take_is_held_against_nobody_and_leaves_no_record(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it may have meant that, to have every machine of a pool rest."""
    engine = Engine(layout.root, EngineTrouble(what="Docker", why="archive/tar: invalid tar header"))
    with pytest.raises(TaskDeclined, match="invalid tar header") as caught:
        fetch(layout, monkeypatch, engine)
    assert caught.value.cause == UNCLEAR_END
    # And it was fetched once, not over and over.
    assert (engine.records, records(layout)) == ([1], 0)


def test_an_image_that_was_being_taken_when_the_power_was_lost_is_neither_believed_nor_built_upon(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has it, and its files may be empty: apps would fail for that, and be voted to have failed."""
    kept: list[Path | None] = []
    monkeypatch.setattr(engine_disk, "keep", kept.append)
    engine = Engine(layout.root)
    name = fetch(layout, monkeypatch, engine)
    assert (kept, engine.removed) == ([layout.root], [])

    def power_lost(_: object) -> None:
        raise KeyboardInterrupt

    engine.images.clear()
    monkeypatch.setattr(engine_disk, "keep", power_lost)
    with pytest.raises(KeyboardInterrupt):
        fetch(layout, monkeypatch, engine)
    assert engine.images == {name}
    monkeypatch.setattr(engine_disk, "keep", kept.append)
    assert fetch(layout, monkeypatch, engine) == name
    assert (kept[1:], engine.removed) == ([layout.root], [name])


def test_what_the_engine_wrote_is_on_disk_afterwards(tmp_path: Path) -> None:
    engine_disk.keep(tmp_path)
    engine_disk.keep(None)
    with pytest.raises(FileNotFoundError):
        engine_disk.keep(tmp_path / "gone")


def test_an_engine_that_goes_away_meanwhile_is_its_own_trouble(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnavailable):
        fetch(layout, monkeypatch, Engine(layout.root, EngineUnavailable(what="Docker", why="gone")))


def test_there_is_room_for_an_image_both_as_it_is_sent_and_unpacked(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine keeps what it was sent until it has unpacked it."""
    asked: list[int] = []
    monkeypatch.setattr(disk, "require_free_space", lambda _, __, floor, *___, **____: asked.append(floor))
    fetch(layout, monkeypatch, Engine(layout.root))
    assert max(asked) >= layout.least_free + UNPACKED + LAYER.size


def test_two_tasks_do_not_have_the_engine_fill_its_disk_at_the_same_time(layout: Layout) -> None:
    waited: list[float] = []
    with ExitStack() as other:
        other.enter_context(engine_disk.alone(layout, waited.append))

        def wait(seconds: float) -> None:
            waited.append(seconds)
            other.close()

        with engine_disk.alone(layout, wait):
            assert len(waited) == 1


def test_a_task_that_is_aborted_waits_for_no_other(layout: Layout) -> None:
    def aborted(_: float) -> None:
        raise TaskDeclined(task=task_id(1), cause="ABORTED_BY_WORKER", why="it was aborted")

    with (
        engine_disk.alone(layout, aborted),
        pytest.raises(TaskDeclined, match="ABORTED"),
        engine_disk.alone(layout, aborted),
    ):
        pytest.fail("it was let in")


# -- volumes that an image declares -----------------------------------------------------------------------------------


def inspected(size: int, *volumes: str) -> dict[str, Any]:
    declared: dict[str, object] = {place: {} for place in volumes}
    return {"Os": "linux", "Architecture": "amd64", "Size": size, "Config": {"Volumes": declared}}


def test_an_image_whose_volumes_would_be_filled_with_more_than_an_app_may_write_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is filled with what the image has at its place, and many places may lead to the same files."""
    monkeypatch.setattr(image_words, "SCRATCH_BYTES", 1_000)
    platform = ("linux", "amd64")
    assert why_unfit(inspected(500, "/a", "/b"), platform) is None
    assert "volumes" in (why_unfit(inspected(500, "/a", "/b", "/c"), platform) or "")
    assert why_unfit(inspected(10**6), platform) is None
    assert (fitting(inspected(500, "/a", "/b")).copied, fitting(inspected(10**6)).copied) == (1_000, 0)


def test_a_container_is_made_only_where_there_is_room_for_what_its_volumes_are_filled_with(layout: Layout) -> None:
    free = os.statvfs(layout.root)
    engine: Any = SimpleNamespace(data_folder=layout.root)

    def room(size: int) -> None:
        with engine_disk.room_for_copies(engine, layout, TaskId(task_id(1)), lambda _: None, size):
            """The container is made here."""

    room(0)
    with pytest.raises(TaskDeclined) as caught:
        room(free.f_bavail * free.f_frsize)
    assert caught.value.cause == UNCLEAR_END
    # Of an engine elsewhere nothing is known.
    engine.data_folder = None
    room(2**62)
