"""A trust-1 result that the pool does not take: it is tried again while there is time, then it goes to the own node."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.connections.ipfs import Ipfs
from protocol.errors import PoolUnavailable, Refused, SluiceError, StorageUnavailable
from protocol.types import Hash32, TaskId
from protocol.wire import Mode, ResultLink
from tests.unit.workers.assignments import assignment, task_id
from workers.data.layout import Layout
from workers.data.result_zip import ResultZip
from workers.task import own_copy, steps
from workers.task.journal import Journal

TASK = TaskId(task_id(1))
DIGEST = Hash32("0x" + "ab" * 32)
DEADLINE = 10_000
NEAR = DEADLINE - own_copy.LAST_SECONDS + 1
NODE = "http://127.0.0.1:5001"
OWN = ResultLink(storage="ipfs", location="/ipfs/QmOwn")
CONTRACT = "0x" + "ca" * 20


class World:
    """A machine with one result; its pool, and its own IPFS node, do as the test says."""

    def __init__(self, folder: Path, answer: SluiceError, api: str | None = NODE) -> None:
        self.answer, self.api, self.now = answer, api, float(NEAR)
        self.tries, self.added = 0, list[Path]()
        self.layout = Layout(folder)
        self.layout.make()
        self.journal = Journal(self.layout.journal)

    def hold(self, mode: Mode, callback_data: str | None = None, **fields: Any) -> None:
        self.journal.add(assignment(1, mode=mode, contribution_deadline=DEADLINE, **fields), 0.0)
        self.journal.mark_running(TASK, None, 0.0)
        self.layout.task(TASK).make()
        with ResultZip(self.layout.task(TASK).zip):
            pass
        self.journal.mark_computed(TASK, 0.0, digest=DIGEST, callback_data=callback_data, cause=None, exit_code=0)

    def put(self, *_: object) -> None:
        self.tries += 1
        raise self.answer

    def upload(self) -> bool:
        machine = SimpleNamespace(settings=SimpleNamespace(worker_ipfs_api=self.api))
        pool = SimpleNamespace(put_result=self.put)
        context: Any = SimpleNamespace(
            layout=self.layout, journal=self.journal, now=lambda: self.now, machine=machine, pool=pool
        )
        return steps.upload(context, TASK)

    @property
    def link(self) -> ResultLink | None:
        found = self.journal.find(TASK)
        assert found is not None
        return found.link


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine with an own node whose pool is away; where it tries more than once, no time passes."""
    made = World(tmp_path, PoolUnavailable(what="pool", why="HTTP 503"))

    def add(_: Ipfs, path: Path, name: str) -> str:
        assert name == f"iexec-result-{TASK}"
        made.added.append(path)
        return "QmOwn"

    monkeypatch.setattr(Ipfs, "add", add)
    monkeypatch.setattr(Ipfs, "pin", lambda *_: None)
    monkeypatch.setattr(steps, "UPLOAD_TIMEOUT", 0.0)
    monkeypatch.setattr(steps, "wait_exponential_jitter", lambda **_: lambda _: 0.0)
    return made


def test_near_its_deadline_the_own_node_has_it_and_the_vote_can_go_out(away: World) -> None:
    away.hold(Mode.SOLO)
    assert away.upload()
    assert (away.link, away.tries, away.added) == (OWN, 1, [away.layout.task(TASK).zip])


@pytest.mark.parametrize(
    ("now", "mode", "api"),
    [
        (DEADLINE - own_copy.LAST_SECONDS - 1, Mode.SOLO, NODE),
        # Nothing can be voted for any more.
        (DEADLINE, Mode.SOLO, NODE),
        (NEAR, Mode.VOTE, NODE),
        (NEAR, Mode.SOLO, None),
    ],
    ids=["time is left", "too late", "a task with votes", "no node"],
)
def test_else_it_is_brought_to_the_pool_again_and_again(away: World, now: float, mode: Mode, api: str | None) -> None:
    away.hold(mode)
    away.now, away.api = now, api
    with pytest.raises(PoolUnavailable):
        away.upload()
    assert (away.link, away.tries, away.added) == (None, steps.UPLOAD_TRIES, [])


def test_a_pool_that_takes_it_not_for_what_it_is_has_the_last_word(away: World) -> None:
    away.hold(Mode.SOLO)
    away.answer = Refused(why="the task is over")
    assert not away.upload()
    assert (away.link, away.added) == (None, [])


def test_an_own_node_that_is_away_as_well_changes_nothing(away: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(*_: object) -> str:
        raise StorageUnavailable(what="IPFS", why="away")

    monkeypatch.setattr(Ipfs, "add", add)
    away.hold(Mode.SOLO)
    with pytest.raises(PoolUnavailable):
        away.upload()
    assert away.link is None


def test_a_copy_whose_pin_gets_no_name_is_a_copy_all_the_same(away: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def pin(*_: object) -> None:
        raise StorageUnavailable(what="IPFS", why="it answers too late")

    monkeypatch.setattr(Ipfs, "pin", pin)
    away.hold(Mode.SOLO)
    assert away.upload()
    assert away.link == OWN


def test_what_a_contract_is_given_needs_no_node(away: World) -> None:
    away.hold(Mode.SOLO, callback_data="0x01", callback=CONTRACT)
    away.api = None
    assert away.upload()
    assert (away.link, away.added) == (ResultLink(storage="ethereum", location=CONTRACT), [])
