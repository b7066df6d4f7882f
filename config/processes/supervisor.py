"""Keeps a handful of named processes alive: the scheduler's, or one worker machine's.

    parent (imports everything once) ──fork──► pipeline      a child that dies is forked again, at once the first
                                     ──fork──► lane          time, then after a growing pause while it keeps dying
                                     ──fork──► …
    SIGTERM/SIGINT to the parent ──► SIGTERM to all ──► they finish their step ──► SIGKILL after the grace period
    parent killed                ──► kernel kills the children (PR_SET_PDEATHSIG): nothing is ever orphaned

Forking from a parent that has already imported everything makes a restart take milliseconds, and shares memory.
The parent must start no thread of its own before it forks.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path

import structlog

from protocol.errors import SluiceError

log = structlog.get_logger(__name__)

#: Linux prctl option: the signal this process gets when its parent dies.
PR_SET_PDEATHSIG = 1
#: A child that lived this long (seconds) is healthy again: its next death is restarted at once.
HEALTHY_SECONDS = 30.0
#: Python's own limit. py_ecc, which eth_account brings along, sets 100,000 for the process that imports it: then a
#: stranger's JSON of nested brackets overflows the C stack and kills the process (seen) instead of raising.
RECURSION_LIMIT = 1000
#: Longest pause (seconds) before a child that keeps dying is started again.
MAX_PAUSE_SECONDS = 10.0
#: Doublings of the pause that are counted: more than lead to the longest, since a float ends at the 1,024th.
_MOST_DOUBLINGS = 16


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; call it first thing in a child."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def close_inherited() -> None:
    """Close the open files that this process inherited, e.g. the lock of `flock`: a service would hold them for as long
    as it runs, and pass them on to its children.

    stdin, stdout and stderr stay, and so do the files that Python opened itself, which are never inheritable.
    """
    for descriptor in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        try:
            if descriptor > sys.stderr.fileno() and os.get_inheritable(descriptor):
                os.close(descriptor)
        except OSError:
            # The one that listed the folder is gone by now.
            continue


def restart_pause(deaths_in_a_row: int) -> float:
    """Seconds to wait before the next start: 0, 0.5, 1, 2, 4, 8, 10, 10 …"""
    if deaths_in_a_row <= 1:
        return 0.0
    return min(MAX_PAUSE_SECONDS, 0.25 * 2.0 ** min(deaths_in_a_row - 1, _MOST_DOUBLINGS))


@dataclass(slots=True)
class _Child:
    """A supervised process: its main function, its process while it runs, and its restarts."""

    name: str
    main: Callable[[], None]
    process: ForkProcess
    #: Readable when the process ends. (Python's own sentinel is closed when a child becomes another program.)
    pidfd: int
    started: float
    deaths: int = 0
    restart_at: float | None = None


class Supervisor:
    """Runs `children` (name → function that runs until SIGTERM) and restarts those that end.

    `pid_dir` gets one file `<name>.pid` per child, rewritten at each restart, for operators and fault tests.
    `grace` is how many seconds a child has to end after SIGTERM; `resumable` are children whose work goes on at the
    next start, so that nothing is lost if they are killed after that.
    """

    def __init__(
        self,
        children: Mapping[str, Callable[[], None]],
        *,
        pid_dir: Path,
        grace: float = 20.0,
        resumable: frozenset[str] = frozenset(),
    ) -> None:
        self._mains = dict(children)
        self._pid_dir = pid_dir
        self._grace = grace
        self._resumable = resumable
        self._context = get_context("fork")
        self._stopping = False
        #: Descriptors that are this process's only: a fork copies them, and each child lets go of them.
        self._own: set[int] = set()

    def run(self) -> None:
        """Start all, keep all running, return after SIGTERM or SIGINT when all have ended."""
        self._pid_dir.mkdir(parents=True, exist_ok=True)
        close_inherited()
        wake_read, wake_write = os.pipe()
        self._own |= {wake_read, wake_write}
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        children = [self._start(name, main) for name, main in self._mains.items()]
        while not self._stopping:
            running = [child.pidfd for child in children if child.restart_at is None]
            due = [child.restart_at - time.monotonic() for child in children if child.restart_at is not None]
            wait([wake_read, *running], timeout=max(0.0, min(due)) if due else None)
            for index, child in enumerate(children):
                children[index] = self._look_after(child)
        self._end(children)
        signal.set_wakeup_fd(-1)

    def _stop(self, *_: object) -> None:
        """Signal handler of the parent: `run` ends after it."""
        self._stopping = True

    def _start(self, name: str, main: Callable[[], None], deaths: int = 0) -> _Child:
        """Fork a child and write its pid file."""
        process = self._context.Process(target=_child_main, args=(name, main, frozenset(self._own)), name=name)
        process.start()
        self._note_pid(name, process.pid)
        log.info("Process started.", action="process_started", name=name, pid=process.pid)
        assert process.pid is not None
        pidfd = os.pidfd_open(process.pid)
        self._own.add(pidfd)
        return _Child(name, main, process, pidfd, time.monotonic(), deaths)

    def _note_pid(self, name: str, pid: int | None) -> None:
        """Write a child's pid file. Nobody's work depends on it, so a full disk ends nothing."""
        try:
            (self._pid_dir / f"{name}.pid").write_text(f"{pid}\n")
        except OSError as error:
            log.warning("No pid file was written.", action="no_pid_file", name=name, pid=pid, why=str(error))

    def _look_after(self, child: _Child) -> _Child:
        """The child, or a new one in its place if it has ended and its pause is over."""
        now = time.monotonic()
        if self._stopping or child.process.is_alive():
            return child
        if child.restart_at is None:
            os.close(child.pidfd)
            self._own.discard(child.pidfd)
            child.deaths = 1 if now - child.started > HEALTHY_SECONDS else child.deaths + 1
            child.restart_at = now + restart_pause(child.deaths)
            log.warning(
                "Process ended, starting it again.",
                action="process_ended",
                name=child.name,
                code=child.process.exitcode,
                seconds=round(child.restart_at - now, 2),
            )
        if now >= child.restart_at:
            return self._start(child.name, child.main, child.deaths)
        return child

    def _end(self, children: list[_Child]) -> None:
        """Send SIGTERM to all children, kill those that do not end within `grace`, and remove their pid files."""
        alive = [child.process for child in children if child.process.is_alive()]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + self._grace
        for process in alive:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                if process.name in self._resumable:
                    words = "Process left in the middle of its work; the next start goes on with it."
                    log.info(words, action="process_left", name=process.name)
                else:
                    log.warning("Process did not end in time, killed.", action="process_killed", name=process.name)
                process.kill()
                process.join()
        for child in children:
            with suppress(OSError):
                (self._pid_dir / f"{child.name}.pid").unlink(missing_ok=True)


def _child_main(name: str, main: Callable[[], None], foreign: frozenset[int] = frozenset()) -> None:
    """What a forked child runs: detach it from the parent's signals and files, then its own main function."""
    die_with_parent()
    for descriptor in foreign:
        os.close(descriptor)
    # Ctrl-C in a terminal goes to the whole foreground group: only the parent should act on it, and tell the children.
    os.setpgrp()
    sys.setrecursionlimit(RECURSION_LIMIT)
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_DFL)
    structlog.contextvars.bind_contextvars(process=name)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
    except SluiceError as error:
        why = str(error)
    else:
        return
    # An error of ours says by itself what is wrong: a traceback would only bury that.
    log.error("Process cannot go on.", action="process_failed", why=why)
    sys.exit(1)
