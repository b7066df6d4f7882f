"""Programs that outlive their starter, found again by pid file, and never mistaken for another."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.stack.process import Process, Program, find
from protocol.errors import NotReady
from tests.waiting import wait_until

FOR_EVER = ["sleep", "1000"]
DEAF = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program("it", FOR_EVER, tmp_path / "it")
    yield program
    process = program.find()
    if process is not None:
        process.stop(timeout=1)


def test_a_program_is_found_by_its_pid_file_and_gone_after_stop(program: Program) -> None:
    process = program.start()
    assert program.find() == process
    process.stop()
    assert program.find() is None
    assert not program.pid_file.exists()


def test_a_program_survives_the_kill_of_the_command_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from ops.stack.process import Program;"
        "Program('it', ['sleep', '1000'], Path(sys.argv[1])).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    starter = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert starter.returncode == -signal.SIGKILL
    process = find("it", tmp_path / "pid")
    assert process is not None
    process.stop()


def test_a_program_inherits_no_open_file(program: Program, tmp_path: Path) -> None:
    """As `flock` would leave one to whatever it starts: two of them, one with a number of two digits."""
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        opened = [os.dup(lock.fileno()), fcntl.fcntl(lock, fcntl.F_DUPFD, 40)]
        for descriptor in opened:
            os.set_inheritable(descriptor, True)
        try:
            process = program.start()
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def held() -> set[int]:
        return {int(link.name) for link in Path(f"/proc/{process.pid}/fd").iterdir()}

    # The shell has become the program once the pid file is there, or is about to: both hold the same files. A library
    # that the program is just loading is closed again; what it inherited would stay.
    wait_until(lambda: held() == {0, 1, 2}, 10, what="the program to hold its three standard files only")
    with (tmp_path / "lock").open("w") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_killed_program_is_seen_at_once_and_its_stale_pid_file_means_nothing(program: Program) -> None:
    process = program.start()
    process.kill()
    assert not process.alive()
    assert program.pid_file.exists()
    assert program.find() is None


def test_a_pid_that_another_program_has_now_is_never_touched(program: Program) -> None:
    """The pid file of a dead program, whose pid was given to an innocent one."""
    innocent = subprocess.Popen(FOR_EVER)
    try:
        ours = program.start()
        boot, stat, fingerprint = program.pid_file.read_text().splitlines()
        ours.stop()
        # With another start time, by seconds: both programs of this test may have started in one clock tick.
        old = stat.replace(str(ours.pid), str(innocent.pid)).replace(str(ours.started), str(ours.started - 1000))
        program.pid_file.write_text(f"{boot}\n{old}\n{fingerprint}\n")
        assert program.find() is None
        Process("it", innocent.pid, ours.started - 1000, program.pid_file).stop()
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_other_settings_end_the_running_program(program: Program) -> None:
    first = program.start()
    other = Program("it", ["sleep", "999"], program.folder)
    assert other.running() is None
    assert not first.alive()


def test_the_same_settings_keep_the_running_program(program: Program) -> None:
    first = program.start()
    assert Program("it", FOR_EVER, program.folder).running() == first


def test_a_program_deaf_to_a_polite_stop_is_killed_with_its_children(tmp_path: Path) -> None:
    deaf = Program("deaf", DEAF, tmp_path / "deaf")
    process = deaf.start()
    group = os.getpgid(process.pid)
    process.stop(timeout=0.3)
    assert not process.alive()
    wait_until(lambda: not _members(group), 5, what="the end of its children")


def test_a_program_that_dies_at_the_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    dying = Program("dying", ["sh", "-c", "echo no such disk; exit 3"], tmp_path / "dying")
    process = dying.start()
    with pytest.raises(NotReady, match=r"dying did not become ready .* It ended. Its last words: no such disk"):
        dying.wait_ready(process, lambda: False, seconds=30)


def test_a_program_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    absent = Program("absent", ["/nonexistent/program"], tmp_path / "absent")
    with pytest.raises(NotReady, match="not found"):
        absent.wait_ready(absent.start(), lambda: False, seconds=30)


def test_a_program_that_never_becomes_ready_is_given_up_in_time(program: Program) -> None:
    process = program.start()
    with pytest.raises(NotReady, match=r"did not become ready within 0.2 s; its log is"):
        program.wait_ready(process, lambda: False, seconds=0.2)


def _members(group: int) -> list[int]:
    return [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _group(stat) == group]


def _group(stat: Path) -> int | None:
    try:
        state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(group)
