"""The launcher as a machine has it: out of its image, once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import NoSuchImage
from workers.data.layout import Layout
from workers.enclave import launcher


class Engine:
    """An engine whose image of the launcher has this id, and its program the id's letters."""

    def __init__(self, image: str | None) -> None:
        self.image, self.read = image, 0

    def image_id(self, _: str) -> str | None:
        return self.image

    def read_file(self, *_: str) -> bytes:
        self.read += 1
        assert self.image is not None
        return self.image.encode()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "worker")
    found.make()
    return found


def test_tasks_that_begin_side_by_side_find_one_program_that_every_user_of_an_image_may_execute(layout: Layout) -> None:
    engine: Any = Engine("ab" * 32)
    before = os.umask(0o077)
    try:
        with ThreadPoolExecutor(8) as tasks:
            paths = set(tasks.map(lambda _: launcher.provide(engine, layout), range(32)))
    finally:
        os.umask(before)
    (path,) = map(Path, paths)
    assert (path.read_bytes(), path.stat().st_mode & 0o777, engine.read) == (b"ab" * 32, 0o755, 1)


def test_another_image_brings_another_program_in_place_of_the_former(layout: Layout) -> None:
    for image in ("ab" * 32, "cd" * 32):
        engine: Any = Engine(image)
        path = Path(launcher.provide(engine, layout))
        assert path.read_bytes() == image.encode()
    assert [*layout.root.glob("launcher-*")] == [path]


def test_an_engine_that_has_lost_the_image_is_named_and_no_program_is_taken_from_before(layout: Layout) -> None:
    with pytest.raises(NoSuchImage, match="sluice/launcher:1"):
        launcher.provide(Engine(None), layout)  # type: ignore[arg-type] # what it is asked
