"""A disk that is full is known by what it did not take, and not by what a machine says of its result's size."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.api.results import upload
from pipeline.api.results.refusals import Refusals
from pipeline.api.results.upload_turns import LEAST_FREE, UploadTurns
from protocol.errors import StorageUnavailable
from protocol.wire import RESULT_BYTES, Mode
from tests.unit.pipeline.builders import TASK, replicate, task, wallet


def test_a_refusal_is_told_with_its_age_until_a_result_is_stored() -> None:
    moment = [100.0]
    refusals = Refusals(lambda: moment[0])
    assert refusals.facts() is None
    refusals.refused("no space left on device")
    moment[0] = 107.0
    found = refusals.facts()
    assert found is not None
    assert (found.refused_since, found.why) == (7.0, "no space left on device")
    refusals.stored()
    assert refusals.facts() is None


@pytest.mark.parametrize(("free", "told"), [(LEAST_FREE - 1, True), (LEAST_FREE, False)])
def test_large_results_that_new_wallets_announce_hold_up_nobody_unless_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, told: bool
) -> None:
    given, noted, looked_after = task(replicates=[replicate(1, mode=Mode.SOLO)]), [], list[bool]()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(upload, "own_replicate", lambda *_: (given, given.replicate(wallet(1))))
    turns = UploadTurns()
    monkeypatch.setattr(upload, "_turns", turns)
    services: Any = SimpleNamespace(
        clock=lambda: 1.0,
        settings=SimpleNamespace(max_result_bytes=RESULT_BYTES, api_processes=1),
        monitor=SimpleNamespace(start=lambda: looked_after.append(True)),
        rates=SimpleNamespace(count=lambda *_: None),
        computed=SimpleNamespace(take=lambda *_: None),
        refusals=Refusals(),
        store=SimpleNamespace(
            uploads=SimpleNamespace(record_not_stored=lambda *args: noted.append(args), record_begun=lambda *_: None)
        ),
        uploads=tmp_path,
    )
    request: Any = SimpleNamespace(headers={"content-length": str(RESULT_BYTES)})
    with turns.room(tmp_path, free // 2, proven=False), pytest.raises(StorageUnavailable):
        asyncio.run(upload.put_result(TASK, request, wallet(1), services))
    assert (services.refusals.facts() is not None) is told
    assert bool(looked_after) is told, "each process knows of its own refusals"
    assert noted, "that it could not be stored counts against no machine"
