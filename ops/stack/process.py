"""Programs that outlive the command which started them, and the pid files that find them again.

    ops.stack        sh (a child)                                        the program
       │  spawn        │                                                     │
       ├──────────────►│ writes its own pid file, renames it into place      │
       │               ├─ exec ─────────────────────────────────────────────►│
       ▼ kill -9 of us at any moment: the pid file is there before the program runs

A pid file holds three lines: the machine's boot id, the program's `/proc/<pid>/stat`, a fingerprint of its command. So
a pid which was given to another program since, or a file left from before a reboot, is never taken for ours, and a
program that runs with other settings than wanted now is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protocol.errors import NotReady

#: The shell writes boot id and stat line, then becomes the program: pid and start time stay the same through `exec`.
_LAUNCH = (
    "read -r boot </proc/sys/kernel/random/boot_id && read -r stat </proc/self/stat && "
    r'printf "%s\n%s\n%s\n" "$boot" "$stat" "$1" >"$0.new" && mv "$0.new" "$0" && shift && exec "$@"'
)
#: Seconds between two checks of a part that is starting; the wait ends at once when the program dies.
_LOOK_SECONDS = 0.05
#: Seconds for the shell to write the pid file: milliseconds on an idle machine.
_LAUNCH_SECONDS = 60
#: The last descriptor that a program is given.
STDERR = 2
#: Last lines of a log that an error repeats.
_LOG_TAIL_LINES = 3
#: Field 22 of `/proc/<pid>/stat` (start time), counted from the state, which follows the name in brackets.
_START_TIME_FIELD = 19


@dataclass(frozen=True, slots=True)
class Process:
    """A running program. `started`: clock ticks since boot, which tells it from a later user of its pid."""

    name: str
    pid: int
    started: int
    pid_file: Path = field(compare=False)
    #: Of the command and environment it was started with; see `fingerprint`.
    fingerprint: str = field(default="", compare=False)

    def alive(self) -> bool:
        """Whether this very program still runs; a zombie does not."""
        return not self.exits_within(0)

    def exits_within(self, seconds: float) -> bool:
        """Wait at most `seconds` for the program's end, and wake up at once when it ends; returns
        whether it has ended.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if _start_time(self.pid) != self.started:
                return True
            # The descriptor is readable once the last thread is gone; only then are ports and files free.
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            ended = bool(poll.poll(seconds * 1000))
        finally:
            os.close(descriptor)
        if ended:
            # If it is our own child, take its exit status, so that no zombie stays.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        return ended

    def stop(self, *, timeout: float = 20.0, how: signal.Signals = signal.SIGTERM) -> None:
        """End the program and delete its pid file: signal `how`, then after `timeout` seconds SIGKILL to its process
        group.
        """
        if self.alive():
            self._signal(how)
            if not self.exits_within(timeout):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self.exits_within(timeout)
        self.pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the program with SIGKILL, as a crash would, and wait for its end; the pid file stays. For tests and
        `bench`.
        """
        self._signal(signal.SIGKILL)
        self.exits_within(10)

    def _signal(self, number: signal.Signals) -> None:
        """Send the process a signal; nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and where its traces go: `folder/pid` and `folder/log`. `env` is added to our environment."""

    name: str
    command: Sequence[str | Path]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    #: Contents of configuration files the command names: a change there is a change of settings too.
    configuration: str = ""

    @property
    def pid_file(self) -> Path:
        """The file with its pid, by which later commands find it."""
        return self.folder / "pid"

    @property
    def log(self) -> Path:
        """The file with its output; that of older starts comes first."""
        return self.folder / "log"

    @property
    def fingerprint(self) -> str:
        """A hash of command, environment and configuration: a running program with another one must be started anew."""
        words = [
            self.configuration,
            *map(str, self.command),
            *(f"{key}={value}" for key, value in sorted(self.env.items())),
        ]
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]

    def find(self) -> Process | None:
        """The running program of this folder, whatever its settings."""
        return find(self.name, self.pid_file)

    def running(self) -> Process | None:
        """The running program if it has the settings wanted now; one with others is stopped first."""
        process = self.find()
        if process is not None and process.fingerprint != self.fingerprint:
            process.stop()
            return None
        return process

    def start(self) -> Process:
        """Start it in a session of its own, output appended to its log; returns once its pid file is written.

        It gets no open file of ours: a server that stays up would hold the lock of `flock FILE make …` for ever.
        Raises NotReady if it could not even be started.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pid_file.unlink(missing_ok=True)
        child = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _LAUNCH, str(self.pid_file), self.fingerprint, *map(str, self.command)],
            {**os.environ, **self.env},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()),
            ],
            setsid=True,
        )
        launched = Process(self.name, child, _start_time(child) or 0, self.pid_file, self.fingerprint)
        deadline = time.monotonic() + _LAUNCH_SECONDS
        while not self.pid_file.exists():
            ended = launched.exits_within(0.002)
            # It may have written the file, become the program and ended since the check before.
            if not self.pid_file.exists() and (ended or time.monotonic() > deadline):
                raise NotReady(part=self.name, seconds=_LAUNCH_SECONDS, log=self.log, why=_last_words(self.log))
        return launched

    def ensure(self, probe: Callable[[], bool], *, seconds: float, before_start: Callable[[], None]) -> Process:
        """Find it running with these settings, else start it after `before_start`; returns once `probe` says yes.

        Raises NotReady, and what `before_start` raises.
        """
        process = self.running()
        if process is not None:
            try:
                self.wait_ready(process, probe, seconds=seconds)
            except NotReady:
                # Found while it was dying (just killed, say): then a new one is what the caller wants.
                if process.alive():
                    raise
            else:
                return process
        before_start()
        process = self.start()
        self.wait_ready(process, probe, seconds=seconds)
        return process

    def wait_ready(self, process: Process, probe: Callable[[], bool], *, seconds: float) -> None:
        """Poll until `probe` returns true. Raises NotReady at once when the program ends, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not probe():
            if process.exits_within(_LOOK_SECONDS):
                why = f"It ended. {_last_words(self.log)}"
                raise NotReady(part=self.name, seconds=seconds, log=self.log, why=why)
            if time.monotonic() > deadline:
                raise NotReady(part=self.name, seconds=seconds, log=self.log, why=_last_words(self.log))


def find(name: str, pid_file: Path) -> Process | None:
    """The program of this pid file if it still runs; None for no file, a stale one, or somebody else's pid."""
    try:
        boot, stat, fingerprint = pid_file.read_text().splitlines()
    except (FileNotFoundError, ValueError):
        return None
    if boot != _boot_id():
        return None
    pid, started = parse_stat(stat)
    process = Process(name, pid, started, pid_file, fingerprint)
    return process if process.alive() else None


def find_pid(name: str, pid: int, *, word: str) -> Process | None:
    """The program with this pid if `word` is in its command line; for programs that write their own pid file."""
    started = _start_time(pid)
    if started is None:
        return None
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Its own pid file is its own concern: the one named here is not there, and unlinking it does nothing.
    return Process(name, pid, started, Path(f"/nonexistent/{pid}")) if word in command else None


def parse_stat(line: str) -> tuple[int, int]:
    """(pid, start time in clock ticks) of a line of `/proc/<pid>/stat`; the name in it may hold blanks and brackets."""
    pid = int(line.split(" ", 1)[0])
    after_name = line.rpartition(")")[2].split()
    return pid, int(after_name[_START_TIME_FIELD])


def parent(pid: int) -> int | None:
    """The process that started `pid`, or has taken it over; None if there is no such process."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(line.rpartition(")")[2].split()[1])


def _start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it has ended."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(line)[1]


def _inheritable() -> list[int]:
    """Our open descriptors above standard error that a program started by us would get: what our own starter left us.

    Those that Python opens are closed by themselves. Closing one twice does no harm (POSIX).
    """
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib would keep nothing but the name either
        with contextlib.suppress(OSError):  # the one that listed the folder is closed by now
            if int(name) > STDERR and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _boot_id() -> str:
    """The kernel's id of this boot: pids and start times mean something only within it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _last_words(log: Path) -> str:
    """The last lines of a log as one sentence."""
    if not log.exists():
        return "It wrote nothing."
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return "Its last words: " + " | ".join(lines[-_LOG_TAIL_LINES:]) if lines else "It wrote nothing."
