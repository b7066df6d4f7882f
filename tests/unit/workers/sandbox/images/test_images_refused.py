"""What kept a machine from images: kept for its owner, never a vote, and gone once the image comes."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.errors import RateLimited, SluiceError, StorageUnavailable, TaskDeclined, TaskFailure, WrongPlatform
from protocol.results.error_result import UNCLEAR_END
from protocol.types import TaskId
from tests.unit.workers.assignments import LATER, assignment, task_id
from workers.data.layout import Layout
from workers.data.registry import RegistryPolicy
from workers.fitness import rules
from workers.sandbox.images.image import AppImage, ImageRules
from workers.sandbox.images.image_store import ImageStore, StoredImage
from workers.sandbox.images.images_refused import KEPT_SECONDS, MOST_KEPT, Obstacle, RefusedImage, RefusedImages
from workers.task.deadline import TaskDeadline

IMAGE = "registry.example/app:1"
#: Longer than any task has time.
LIMIT_SECONDS = 3e9
LIMIT = RateLimited(what="registry.example", why="HTTP 429 \x1b[2J", retry_after=LIMIT_SECONDS)
FOREIGN = WrongPlatform(why="the image is for linux/arm64, and this machine is linux/amd64")
NOW = 1_800_000_000.0


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.make()
    return made


def fetch(layout: Layout, monkeypatch: pytest.MonkeyPatch, *answers: SluiceError | None) -> str | SluiceError:
    """What comes of asking for IMAGE while its registry answers so, one after the other; None: with the image."""
    told = iter(answers)

    def answer(self: AppImage) -> str:
        error = next(told)
        if error is not None:
            raise error
        return "sluice-image:1"

    monkeypatch.setattr(AppImage, "_fetch", answer)
    engine: Any = SimpleNamespace(has_image=lambda _: False)
    deadline = TaskDeadline(TaskId(task_id(1)), LATER, time.time, lambda: False, sleep=lambda _: None)
    monkeypatch.setattr(deadline, "wait", lambda _: None)
    rule = ImageRules(RegistryPolicy(max_bytes=1, pool_max_bytes=1))
    try:
        return AppImage(engine, layout, rule, assignment(1, image=IMAGE), deadline).fetch()
    except TaskFailure as failure:
        return failure


def refused(layout: Layout) -> list[tuple[str, Obstacle]]:
    return [(each.image, each.obstacle) for each in RefusedImages(layout.root).met_since(0.0)]


def test_a_registrys_rate_limit_is_no_vote_and_is_kept_until_the_registry_serves_again(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    declined = fetch(layout, monkeypatch, LIMIT)
    assert isinstance(declined, TaskDeclined)
    assert declined.cause == UNCLEAR_END
    (kept,) = RefusedImages(layout.root).met_since(0.0)
    assert (kept.image, kept.registry, kept.obstacle) == (IMAGE, "registry.example", Obstacle.RATE_LIMIT)
    assert kept.why == "HTTP 429 ?[2J"
    assert kept.until == pytest.approx(time.time() + LIMIT_SECONDS, abs=60)
    assert fetch(layout, monkeypatch, None) == "sluice-image:1"
    assert refused(layout) == []


def test_an_image_for_another_architecture_is_no_vote_and_is_kept(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    declined = fetch(layout, monkeypatch, FOREIGN)
    assert isinstance(declined, TaskDeclined)
    assert declined.cause == UNCLEAR_END
    assert refused(layout) == [(IMAGE, Obstacle.PLATFORM)]


def test_a_registry_that_is_away_for_a_moment_leaves_nothing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch(layout, monkeypatch, StorageUnavailable(what="x", why="HTTP 503"), None) == "sluice-image:1"
    assert refused(layout) == []


def kept(image: str, obstacle: Obstacle, met_at: float, until: float | None = None) -> RefusedImage:
    return RefusedImage(image, image.partition("/")[0], obstacle, "why", met_at, until)


def test_an_image_that_comes_ends_the_limits_of_its_registry_and_of_no_other(tmp_path: Path) -> None:
    images = RefusedImages(tmp_path)
    for name in ("a.example/1:1", "a.example/2:1", "b.example/1:1"):
        images.note(kept(name, Obstacle.RATE_LIMIT, NOW))
    images.note(kept("a.example/3:1", Obstacle.PLATFORM, NOW))
    images.fetched("a.example/1:1", "a.example")
    assert {each.image for each in images.met_since(0.0)} == {"b.example/1:1", "a.example/3:1"}


def test_what_is_kept_is_bounded_in_age_and_number(tmp_path: Path) -> None:
    images = RefusedImages(tmp_path)
    images.note(kept("old.example/1:1", Obstacle.PLATFORM, NOW - KEPT_SECONDS - 1))
    for number in range(MOST_KEPT + 5):
        images.note(kept(f"a.example/{number}:1", Obstacle.PLATFORM, NOW + number))
    assert [each.image for each in images.met_since(0.0)] == [
        f"a.example/{number}:1" for number in reversed(range(5, MOST_KEPT + 5))
    ]
    assert len(list(tmp_path.rglob("*.json"))) == MOST_KEPT
    # A record of another release, and one that was cut.
    for path, content in zip(tmp_path.rglob("*.json"), ('{"image": 1}', "{"), strict=False):
        path.write_text(content)
    assert len(images.met_since(0.0)) == MOST_KEPT - 2


def test_images_used_lately_are_counted(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert store.used_since(0.0) == 0
    RefusedImages(tmp_path).note(kept("a.example/1:1", Obstacle.PLATFORM, NOW))
    store.put(StoredImage("b:1", "sluice-image:1", "sha256:1", 1, NOW))
    assert (store.used_since(0.0), store.used_since(time.time() + 60)) == (1, 0)


@pytest.mark.parametrize(
    ("until", "now", "ok"),
    [
        (NOW + 600, NOW + 599, False),
        (NOW + 600, NOW + 601, True),
        # Without a word of the registry's, for as long as a task may meet it again.
        (None, NOW + rules.RATE_LIMIT_SECONDS - 1, False),
        (None, NOW + rules.RATE_LIMIT_SECONDS + 1, True),
    ],
)
def test_a_rate_limit_makes_a_machine_unfit_while_it_lasts(until: float | None, now: float, ok: bool) -> None:
    found = rules.images([kept("a.example/1:1", Obstacle.RATE_LIMIT, NOW, until)], 3, "linux/amd64", now)
    assert found.ok == ok
    if not ok:
        assert "a.example" in found.says
        assert ("2027-01-15 08:10:00 UTC" in found.says) == (until is not None)


@pytest.mark.parametrize(
    ("platform", "foreign", "served", "ok", "words"),
    [
        ("linux/amd64", 0, 0, True, "none refused"),
        ("linux/amd64", 1, 2, True, "1 of 3 apps"),
        ("linux/amd64", 2, 2, False, "2 of 4 apps"),
        ("linux/arm64", 0, 0, False, "linux/amd64 only"),
        ("linux/arm64", 0, 1, True, "none refused"),
        ("linux/arm64", 3, 1, False, "3 of 4 apps"),
    ],
)
def test_a_machine_is_fit_if_it_can_serve_more_apps_than_it_cannot(
    platform: str, foreign: int, served: int, ok: bool, words: str
) -> None:
    met = [kept(f"a.example/{number}:1", Obstacle.PLATFORM, NOW) for number in range(foreign)]
    found = rules.images(met, served, platform, NOW)
    assert (found.ok, words in found.says) == (ok, True)
