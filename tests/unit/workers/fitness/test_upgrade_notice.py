"""An operator learns that the pool runs a newer release."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pytest

from config.settings import read_settings
from protocol.errors import PoolUnavailable
from tests.unit.workers.assignments import WORKER_KEY
from tests.unit.workers.pool.test_complete_settings import POOL
from workers.fitness import doctor, status
from workers.pool.release import upgrade_notice


@pytest.mark.parametrize(
    ("pool", "newer"), [("99.0", True), (version("sluice"), False), ("0", False), ("\x1b[2J99.0", True)]
)
def test_status_shows_that_the_pool_runs_a_newer_release_also_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str, newer: bool
) -> None:
    settings = read_settings(home=tmp_path)
    monkeypatch.setattr(status, "_at_pool", lambda *_: None)
    monkeypatch.setattr(status, "_on_chain", lambda *_: None)
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: [])
    monkeypatch.setattr(status, "completed_by_pool", lambda *_: (settings, POOL.model_copy(update={"version": pool})))
    found = status.status(settings, WORKER_KEY)
    shown = "\n".join(status.lines(found))
    assert ("upgrade    The pool runs Sluice" in shown) == newer
    assert "\x1b" not in shown
    assert (json.loads(json.dumps(asdict(found)))["upgrade"] is not None) == newer


def test_status_says_nothing_of_a_release_that_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise PoolUnavailable(what="pool", why="away")

    monkeypatch.setattr(status, "_at_pool", lambda *_: None)
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: [])
    monkeypatch.setattr(status, "completed_by_pool", away)
    assert status.status(read_settings(home=tmp_path), WORKER_KEY).upgrade is None


@pytest.mark.parametrize(("pool", "own"), [("1.0.0", "1.0"), ("1", "1.0.0"), ("1.0", "1.0.0")])
def test_releases_are_alike_however_many_zeros_they_are_written_with(pool: str, own: str) -> None:
    assert upgrade_notice(pool, own) is None
