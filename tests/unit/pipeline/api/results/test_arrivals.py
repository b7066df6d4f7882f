"""A result that is long on its way is noted while it comes, where its machine cannot vote before it is stored."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from pipeline.api.results import arrivals, upload
from pipeline.api.results.upload_turns import PER_WALLET, UploadTurns
from protocol.errors import Unavailable
from protocol.types import TaskId, Wallet
from protocol.wire import RESULT_BYTES, Mode
from tests.unit.pipeline.builders import TASK, replicate, task, wallet

#: Turns of the event loop that a served request takes here.
TURNS = 50


class Notes:
    """Stands for `store.uploads`: what was noted; `fails`: the database is away."""

    def __init__(self, *, fails: bool = False) -> None:
        self.coming: list[TaskId] = []
        self.begun: list[TaskId] = []
        self._fails = fails

    def record_coming(self, task_id: TaskId, *_: object) -> None:
        self.coming.append(task_id)
        if self._fails:
            raise AutoReconnect("away")

    def record_begun(self, task_id: TaskId, *_: object) -> None:
        self.begun.append(task_id)


def services(notes: Notes) -> Any:
    return SimpleNamespace(clock=lambda: 1.0, store=SimpleNamespace(uploads=notes))


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes follow on each other at once, and in this thread."""

    async def at_once(call: Any, *args: Any) -> Any:
        return call(*args)

    monkeypatch.setattr(arrivals, "NOTE_SECONDS", 0.0)
    monkeypatch.setattr(arrivals, "run_in_threadpool", at_once)
    monkeypatch.setattr(upload, "run_in_threadpool", at_once)


async def serve(notes: Notes, mode: Mode) -> None:
    """A request that is served for a while, and then is over for a while."""
    item = replicate(1, mode=mode)
    async with arrivals.noted_while_served(services(notes), task(replicates=[item]), item):
        for _ in range(TURNS):
            await asyncio.sleep(0)
    served = len(notes.coming)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert len(notes.coming) <= served + 1, "noted though it is over"


@pytest.mark.parametrize("fails", [False, True])
def test_the_result_of_a_machine_alone_is_noted_again_and_again_while_it_comes(fails: bool) -> None:
    notes = Notes(fails=fails)
    asyncio.run(serve(notes, Mode.SOLO))
    assert len(notes.coming) > 1


def test_one_that_was_voted_for_is_not_noted_again() -> None:
    notes = Notes()
    asyncio.run(serve(notes, Mode.VOTE))
    assert notes.coming == []


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(("size", "large"), [(upload.QUICK_BYTES, False), (upload.QUICK_BYTES + 1, True)])
def test_the_begin_of_a_large_result_is_noted_however_it_gets_on_chain(mode: Mode, size: int, large: bool) -> None:
    notes, item = Notes(), replicate(1, mode=mode)
    asyncio.run(upload._note_on_its_way(services(notes), task(replicates=[item]), item, size, turn=True))
    assert bool(notes.begun) is large


class WaitsForNoTurn(UploadTurns):
    """Turns for which nobody waits."""

    async def has_turn(self, wallet: Wallet, task_id: TaskId, seconds: float = 0.0) -> bool:
        return await super().has_turn(wallet, task_id, seconds)


def test_a_result_that_waits_for_other_results_of_its_machine_is_noted_too(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, turns, item = Notes(), WaitsForNoTurn(), replicate(1, mode=Mode.SOLO)
    given = task(trust=1, replicates=[item])
    monkeypatch.setattr(upload, "_turns", turns)
    monkeypatch.setattr(upload, "own_replicate", lambda *_: (given, item))
    pool = services(notes)
    pool.settings = SimpleNamespace(max_result_bytes=RESULT_BYTES, api_processes=1)
    pool.rates, pool.computed = SimpleNamespace(count=lambda *_: None), SimpleNamespace(take=lambda *_: None)
    pool.uploads = tmp_path
    request: Any = SimpleNamespace(headers={"content-length": "1000"})
    others = [turns.receiving(wallet(1), TaskId(f"0x{number:064x}")) for number in range(PER_WALLET)]
    for other in others:
        other.__enter__()
    with pytest.raises(Unavailable):
        asyncio.run(upload.put_result(TASK, request, wallet(1), pool))
    assert notes.coming == [TASK]
