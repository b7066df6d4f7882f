"""The supervisor of a service's processes: restarts, signals, and files that children inherit."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from config.processes.supervisor import Supervisor, _child_main, restart_pause
from protocol.errors import BadSetting
from tests.waiting import ample, wait_until


def _wait_for_signal() -> None:
    threading.Event().wait()


def _supervise(pid_dir: Path) -> None:
    Supervisor({"one": _wait_for_signal, "two": _wait_for_signal}, pid_dir=pid_dir, grace=5).run()


def _pid(path: Path, other_than: int = 0) -> int:
    def written() -> int:
        text = path.read_text().strip() if path.exists() else ""
        return int(text) if text and int(text) != other_than else 0

    return wait_until(written, 10, what=str(path))


def test_a_killed_child_is_started_again_and_sigterm_ends_all(tmp_path: Path) -> None:
    parent = get_context("fork").Process(target=_supervise, args=(tmp_path,))
    parent.start()
    one, two = _pid(tmp_path / "one.pid"), _pid(tmp_path / "two.pid")
    os.kill(one, signal.SIGKILL)
    again = _pid(tmp_path / "one.pid", other_than=one)
    assert _pid(tmp_path / "two.pid") == two
    parent.terminate()
    parent.join(ample(10))
    assert parent.exitcode == 0
    for pid in (again, two):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_pid_file_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "one.pid").mkdir()
    parent = get_context("fork").Process(target=_supervise, args=(tmp_path,))
    parent.start()
    two = _pid(tmp_path / "two.pid")
    parent.terminate()
    parent.join(ample(10))
    assert parent.exitcode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(two, 0)


def _supervise_with_a_lock(pid_dir: Path, lock: int) -> None:
    os.set_inheritable(lock, True)
    _supervise(pid_dir)


def _files(pid: int) -> set[str]:
    """What the descriptors of a process lead to, but for standard input, output and error."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        # The one that lists the folder is gone by now.
        with suppress(FileNotFoundError):
            found |= {str(link.readlink())} if int(link.name) > 2 else set()
    return found


def _holds_no_pidfd(pid: int) -> bool:
    return not any("pidfd" in name for name in _files(pid))


def test_children_hold_neither_what_the_supervisor_inherited_nor_what_it_opened(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with lock.open("w") as held:
        before = _files(os.getpid())
        parent = get_context("fork").Process(target=_supervise_with_a_lock, args=(tmp_path / "run", held.fileno()))
        parent.start()
        assert parent.pid is not None
        first, two = _pid(tmp_path / "run" / "one.pid"), _pid(tmp_path / "run" / "two.pid")
        os.kill(first, signal.SIGKILL)
        one = _pid(tmp_path / "run" / "one.pid", other_than=first)
        # What the test process itself had open is not the supervisor's.
        opened = _files(parent.pid) - before
        assert any("pidfd" in name for name in opened)
        assert str(lock) not in _files(parent.pid)
        for child in (one, two):
            assert str(lock) not in _files(child)
            wait_until(partial(_holds_no_pidfd, child), 10, what="a child without its siblings' files")
        parent.terminate()
        parent.join(ample(10))


def _become_another_program() -> None:
    os.execv("/bin/sleep", ["sleep", "60"])


def _supervise_exec(pid_dir: Path) -> None:
    Supervisor({"exec": _become_another_program, "plain": _wait_for_signal}, pid_dir=pid_dir, grace=5).run()


def test_a_child_that_becomes_another_program_costs_the_supervisor_nothing(tmp_path: Path) -> None:
    parent = get_context("fork").Process(target=_supervise_exec, args=(tmp_path,))
    parent.start()
    child = _pid(tmp_path / "exec.pid")
    wait_until(lambda: Path(f"/proc/{child}/comm").read_text().strip() == "sleep", 10)
    first = _pid(tmp_path / "plain.pid")
    os.kill(first, signal.SIGKILL)
    second = _pid(tmp_path / "plain.pid", other_than=first)
    before = _cpu_ticks(parent.pid)
    # The next two deaths in a row are followed by pauses of half a second and a second, in which the supervisor must
    # sleep: else that would be 150 ticks, or 75 at half speed. Two forks cost a few.
    os.kill(second, signal.SIGKILL)
    third = _pid(tmp_path / "plain.pid", other_than=second)
    os.kill(third, signal.SIGKILL)
    _pid(tmp_path / "plain.pid", other_than=third)
    assert _cpu_ticks(parent.pid) - before <= 40
    assert _pid(tmp_path / "exec.pid") == child
    parent.terminate()
    parent.join(ample(10))


def _cpu_ticks(pid: int | None) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize(
    ("deaths", "seconds"), [(0, 0.0), (1, 0.0), (2, 0.5), (3, 1.0), (6, 8.0), (20, 10.0), (5000, 10.0)]
)
def test_the_pause_before_a_restart_grows_and_is_bounded_also_for_a_child_that_dies_for_days(
    deaths: int, seconds: float
) -> None:
    assert restart_pause(deaths) == seconds


def _refuse() -> None:
    raise BadSetting(name="SLUICE_HUB", why="it is not set", fix="Set it.")


def test_a_child_that_ends_with_an_error_of_ours_says_so_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    child = get_context("fork").Process(target=_child_main, args=("one", _refuse))
    child.start()
    child.join(ample(10))
    assert child.exitcode == 1
    said = capfd.readouterr()
    assert "SLUICE_HUB is wrong" in said.out + said.err
    assert "Traceback" not in said.out + said.err
