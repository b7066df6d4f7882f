"""What `sluice worker init | stop | drain | logs` do, without a pool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from chain.keystore import load_key
from config.settings import read_settings, settings
from ops import cli, wallet_files
from ops.machine import life
from protocol.errors import BadInput, BadKeystore, NotFound, PoolUnavailable, RefusedHere
from protocol.types import Hash32
from protocol.wire import Pong, Report, Step
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from workers import control, log_file
from workers.care.upkeep import Upkeep
from workers.data.layout import Layout, layout_of
from workers.pool.release import upgrade_notice
from workers.task.journal import ENDED_SECONDS, Journal
from workers.task.replicate import ReplicateStage

DIGEST = Hash32("0x" + "ab" * 32)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "worker")
    made.make()
    return made


# -- init --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cheap_keystores")
def test_a_new_wallet_can_be_used_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    keystore, password = tmp_path / "wallet.json", tmp_path / "password"
    wallet = wallet_files.make_wallet(keystore, password)
    assert load_key(read_settings(keystore=keystore, keystore_password_file=password)).wallet == wallet
    assert [path.stat().st_mode & 0o777 for path in (keystore, password)] == [0o600, 0o600]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["password", "wallet.json"]
    before = keystore.read_bytes()
    with pytest.raises(BadKeystore, match="never overwritten"):
        wallet_files.make_wallet(keystore, password)
    assert keystore.read_bytes() == before


@pytest.mark.parametrize(("content", "mode", "why"), [("", 0o600, "empty"), ("secret", 0o644, "others may read")])
def test_a_password_file_that_protects_nothing_is_refused(tmp_path: Path, content: str, mode: int, why: str) -> None:
    password = tmp_path / "password"
    password.write_text(content)
    password.chmod(mode)
    with pytest.raises(BadKeystore, match=why):
        wallet_files.make_wallet(tmp_path / "wallet.json", password)
    assert not (tmp_path / "wallet.json").exists()


def test_a_keystore_that_is_not_there_is_called_absent(tmp_path: Path) -> None:
    with pytest.raises(BadKeystore, match="absent"):
        load_key(read_settings(keystore=tmp_path / "none.json", keystore_password_file=tmp_path / "none"))


# -- stop --------------------------------------------------------------------------------------------------------------

_MACHINE = """
import sys, signal
from pathlib import Path
from workers import control
from workers.data.layout import Layout
layout = Layout(Path(sys.argv[1]))
with layout.lock(control.LOCK, wait=False):
    control.note_process(layout)
    print("ready", flush=True)
    signal.pause()
"""


def test_the_process_that_holds_the_machine_s_lock_is_found_and_ended(layout: Layout) -> None:
    assert control.running_process(layout) is None
    with subprocess.Popen([sys.executable, "-c", _MACHINE, str(layout.root)], stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == b"ready\n"
        assert control.running_process(layout) == machine.pid
        assert control.stop(machine.pid, 20.0)
    assert control.running_process(layout) is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("stop", "Would be stopped. Nothing is left unfinished."),
        ("drain", "Would drain: 0 computing"),
        ("drain --deadline 1", "Would drain: 0 computing"),
        ("drain --cancel", "It would take tasks again."),
    ],
)
def test_a_machine_that_would_be_ended_goes_on(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = read_settings(home=tmp_path, private_key=WORKER_KEY._private.to_hex())
    monkeypatch.setattr("ops.commands.run.worker.settings", lambda: now)
    place = layout_of(tmp_path, WORKER_KEY.wallet)
    place.make()
    Journal(place.journal).close()
    monkeypatch.setattr(life, "settings_from_pool", lambda given, _: given)
    with subprocess.Popen([sys.executable, "-c", _MACHINE, str(place.root)], stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == b"ready\n"
        before = sorted(path.name for path in place.root.iterdir())
        assert cli.run(["worker", *words.split(), "--dry-run"]) == 0
        assert says in capsys.readouterr().out
        assert control.running_process(place) == machine.pid
        assert sorted(path.name for path in place.root.iterdir()) == before
        assert control.stop(machine.pid, 20.0)
    assert cli.run(["worker", "stop", "--dry-run"]) == 0
    assert "This machine does not run." in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    ["worker stop", "worker drain", "worker drain --cancel", "worker logs", "worker earnings", "tx ls --worker"],
)
def test_in_a_shell_without_the_machines_home_nobody_is_told_that_nothing_is_left(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "another"))
    monkeypatch.setenv("SLUICE_PRIVATE_KEY", WORKER_KEY._private.to_hex())
    settings.cache_clear()
    assert cli.run(words.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"no machine of the wallet {WORKER_KEY.wallet} has run with {tmp_path}" in said.err
    assert list(tmp_path.iterdir()) == []
    settings.cache_clear()


def test_another_process_with_the_machine_s_old_pid_is_left_alone(layout: Layout) -> None:
    control.note_process(layout)
    assert control.running_process(layout) is None


def test_a_machine_of_another_user_is_not_said_to_be_stopped(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    control.note_process(layout)
    denied = PermissionError(13, "Permission denied", f"/proc/{os.getpid()}/fd")
    monkeypatch.setattr(Path, "iterdir", Mock(side_effect=denied))
    with pytest.raises(RefusedHere, match="run the command as the machine's user"):
        control.running_process(layout)


# -- drain -------------------------------------------------------------------------------------------------------------


class Machine:
    """A machine's upkeep, and what it sent to the pool."""

    def __init__(self, layout: Layout) -> None:
        self.journal = Journal(layout.journal)
        self.left = 0
        self.queued = 0
        self.reports: list[Report] = []
        context: Any = SimpleNamespace(
            layout=layout,
            journal=self.journal,
            now=time.time,
            rpc=None,
            machine=SimpleNamespace(
                wallet=WORKER_KEY.wallet,
                pool=SimpleNamespace(hub="0x" + "0" * 40, least_stake=None),
                settings=SimpleNamespace(worker_name="test"),
                api=SimpleNamespace(worker=lambda _: SimpleNamespace(busy=0)),
            ),
            pool=SimpleNamespace(ping=lambda *_: Pong(forget=[], abort=[]), leave=self._leave),
            engine=SimpleNamespace(containers_of=lambda _: [], kill=lambda _: None),
            reports=SimpleNamespace(send=lambda _, report: self.reports.append(report)),
            lane=SimpleNamespace(id=None),
            ledger=SimpleNamespace(note_stakes=lambda: None, why_no_work=lambda _: None),
            lane_store=SimpleNamespace(count=lambda *_: self.queued),
        )
        self.upkeep = Upkeep(context, SimpleNamespace(resume=lambda *_: None, reveal=lambda *_: None))  # type: ignore[arg-type]

    def _leave(self, _: str) -> None:
        self.left += 1


def test_a_machine_that_is_not_asked_to_drain_stays(layout: Layout) -> None:
    machine = Machine(layout)
    machine.upkeep.run_once()
    assert (machine.left, machine.upkeep.drained) == (0, False)


def test_a_machine_that_drains_signs_off_and_ends_once_nothing_is_left(layout: Layout) -> None:
    machine = Machine(layout)
    control.ask_to_drain(layout, None)
    machine.queued = 1
    machine.upkeep.run_once()
    assert (machine.left, machine.upkeep.drained) == (1, False)
    machine.queued = 0
    machine.upkeep.run_once()
    assert machine.upkeep.drained


@pytest.mark.parametrize(
    ("answer", "ends"),
    [
        (PoolUnavailable(what="the pool", why="502"), False),
        (BadInput(what="Too many requests."), False),
        (NotFound(what="worker"), True),
    ],
)
def test_a_drained_machine_stays_while_the_pool_does_not_say_whether_it_has_work(
    layout: Layout, answer: Exception, ends: bool
) -> None:
    machine = Machine(layout)
    machine.upkeep._context.machine.api.worker = Mock(side_effect=answer)  # type: ignore[method-assign]
    control.ask_to_drain(layout, None)
    machine.upkeep.run_once()
    assert machine.upkeep.drained is ends


def _running(journal: Journal) -> None:
    journal.mark_running(task_id(1), "container", time.time())


def _voted(journal: Journal) -> None:
    journal.mark_computed(task_id(1), time.time(), digest=DIGEST, callback_data=None, cause=None, exit_code=0)
    journal.mark_committed(task_id(1), time.time())


def _revealed(journal: Journal) -> None:
    _voted(journal)
    journal.mark_revealed(task_id(1), time.time())


@pytest.mark.parametrize("begun", [_running, _voted, _revealed])
def test_without_a_deadline_everything_is_finished_first(layout: Layout, begun: Callable[[Journal], None]) -> None:
    machine = Machine(layout)
    machine.journal.add(assignment(1), time.time())
    begun(machine.journal)
    control.ask_to_drain(layout, None)
    machine.upkeep.run_once()
    assert not machine.upkeep.drained
    assert machine.reports == []


def test_at_the_deadline_what_is_computed_goes_back_to_the_pool(layout: Layout) -> None:
    machine = Machine(layout)
    machine.journal.add(assignment(1), time.time())
    _running(machine.journal)
    control.ask_to_drain(layout, time.time() - 1)
    machine.upkeep.run_once()
    assert machine.upkeep.drained
    assert [report.step for report in machine.reports] == [Step.FAILED]
    found = machine.journal.find(task_id(1))
    assert found is not None
    assert found.stage is ReplicateStage.ABORTED


@pytest.mark.parametrize("begun", [_voted, _revealed])
def test_a_vote_is_not_given_up_whatever_the_deadline(layout: Layout, begun: Callable[[Journal], None]) -> None:
    machine = Machine(layout)
    machine.journal.add(assignment(1), time.time())
    begun(machine.journal)
    control.ask_to_drain(layout, time.time() - 1)
    machine.upkeep.run_once()
    assert not machine.upkeep.drained
    assert machine.reports == []


def test_a_drain_that_is_taken_back_is_over(layout: Layout) -> None:
    control.ask_to_drain(layout, 5.0)
    assert control.drain_of(layout) == control.Drain(control.drain_of(layout).since, 5.0)  # type: ignore[union-attr]
    control.end_drain(layout)
    assert control.drain_of(layout) is None


# -- logs --------------------------------------------------------------------------------------------------------------


def test_a_full_log_begins_anew_and_old_ones_are_deleted(layout: Layout) -> None:
    path = log_file.path_of(layout)
    path.parent.mkdir()
    for number in range(10):
        path.write_text(f"line {number}\n")
        log_file.rotate(layout, max_bytes=1)
    assert len(list(path.parent.iterdir())) == log_file.KEPT
    assert list(log_file.lines(layout, 100)) == ["line 7", "line 8", "line 9"]


def test_lines_of_one_task_are_found_and_new_ones_follow_over_a_new_file(layout: Layout) -> None:
    path = log_file.path_of(layout)
    path.parent.mkdir()
    path.write_text("a 0x1\nb 0x2\nc 0x1\n")
    assert list(log_file.lines(layout, 1, "0x1")) == ["c 0x1"]
    following = log_file.lines(layout, 10, "0x1", follow=True)
    assert list(islice(following, 2)) == ["a 0x1", "c 0x1"]
    log_file.rotate(layout, max_bytes=1)
    path.write_text("d 0x1\n")
    assert next(following) == "d 0x1"


def test_a_line_is_shown_to_people_in_words() -> None:
    line = json.dumps({"event": "Computed.", "level": "info", "timestamp": "2026-01-02T03:04:05.6Z", "task": "0x1"})
    assert log_file.for_people(line) == "2026-01-02 03:04:05  info     Computed.  task=0x1"
    assert log_file.for_people("no json") == "no json"


# -- what ended, and releases ------------------------------------------------------------------------------------------


def test_ended_tasks_leave_the_journal_and_are_deleted_in_the_end(layout: Layout) -> None:
    journal = Journal(layout.journal)
    for number, ended in ((1, 1000.0), (2, 1001.0 + ENDED_SECONDS)):
        journal.add(assignment(number), 1.0)
        journal.end(task_id(number), ended)
    assert journal.all_replicates() == []
    assert [item.task_id for item in journal.ended(0.0)] == [task_id(2)]


@pytest.mark.parametrize(
    ("pool", "newer"), [("0.1.0", False), ("0.1.1", True), ("1.0", True), ("0.0.9", False), ("", False), ("x", False)]
)
def test_a_pool_of_a_newer_release_is_noticed(pool: str, newer: bool) -> None:
    assert (upgrade_notice(pool, "0.1.0") is not None) is newer
