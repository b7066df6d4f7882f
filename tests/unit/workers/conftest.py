"""Fixtures of the tests of a worker machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.workers.upkeep_world import World
from workers.data.layout import Layout
from workers.task.journal import Journal


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    layout = Layout(tmp_path / "worker")
    layout.make()
    journal = Journal(layout.journal)
    yield World(layout, journal)
    journal.close()
