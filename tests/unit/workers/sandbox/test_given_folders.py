"""On an engine with user namespaces, a container's folders belong to its root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from workers.sandbox.engine import given_folders
from workers.sandbox.spec import ContainerSpec

SPEC = ContainerSpec("app", "image", (), {}, {}, "/in", "/out", cast("Any", None), 60, cast("Any", None))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Folders that were given away, to whom."""
    found: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "chown", lambda *words, **_: found.append(words))
    return found


def test_folders_are_given_to_the_root_that_the_engine_has_in_its_folders_name(given: list[tuple[object, ...]]) -> None:
    given_folders.give(SPEC, Path("/var/lib/docker/100000.200000"))
    assert given == [("/in", 100_000, 200_000), ("/out", 100_000, 200_000)]


@pytest.mark.parametrize("folder", [None, Path("/var/lib/docker"), Path("/data/v1.2"), Path("/data/1.2.3")])
def test_folders_stay_roots_on_any_other_engine(given: list[tuple[object, ...]], folder: Path | None) -> None:
    given_folders.give(SPEC, folder)
    assert given == []


def test_a_file_system_that_refuses_owners_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refused)
    given_folders.give(SPEC, Path("/var/lib/docker/100000.100000"))
