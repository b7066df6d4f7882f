"""How a command controls a running machine: by a signal to its process, whose id is in a file, and by a file that asks
it to drain.

stop     SIGTERM: steps under way get some seconds, the rest goes on at the next start
drain    no new task, what was given is finished or, after a deadline, given back; then SIGTERM by the machine itself
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from config.whole_files import write_whole
from protocol.errors import RefusedHere
from workers.data.layout import Layout

LOCK = "machine"


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator asked the machine to take no new task and to end. Times in Unix seconds."""

    since: float
    #: When what is not computed by then is given back to the pool; None: everything is finished.
    deadline: float | None = None


def note_process(layout: Layout) -> None:
    """Write this process's id to the machine's pid file; only while it holds the machine's lock."""
    write_whole(_pid_file(layout), str(os.getpid()))


def running_process(layout: Layout) -> int | None:
    """The pid of the machine's first process; None if it does not run.

    Raises RefusedHere if the process belongs to another user, so that nobody here can say.
    """
    try:
        pid = int(_pid_file(layout).read_text())
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError as error:
        why = f"{error.filename} belongs to another user, so it cannot be seen whether this machine runs"
        raise RefusedHere(why=f"{why}: run the command as the machine's user") from error
    except (OSError, ValueError):
        return None
    lock = layout.locks / LOCK
    # A pid may be used again: only who has the lock open is the machine.
    return pid if any(_leads_to(link, lock) for link in links) else None


def stop(pid: int, seconds: float) -> bool:
    """Send SIGTERM to the machine and wait at most `seconds` for its end; returns whether it has ended."""
    return _await_end(pid, seconds, signal.SIGTERM)


def await_end(pid: int, seconds: float) -> bool:
    """Wait at most `seconds` until the machine has ended; returns whether it has."""
    return _await_end(pid, seconds, None)


def _await_end(pid: int, seconds: float, first: signal.Signals | None) -> bool:
    """Send a process a signal, if there is one, and wait; whether it has ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if first is not None:
            signal.pidfd_send_signal(process, first)
        return bool(select.select([process], [], [], seconds)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(process)


def ask_to_drain(layout: Layout, deadline: float | None) -> Drain:
    """Ask the machine to drain; `deadline`: Unix seconds, None for no limit. A later call replaces the first."""
    wish = Drain(time.time(), deadline)
    write_whole(_drain_file(layout), json.dumps(asdict(wish)))
    return wish


def drain_of(layout: Layout) -> Drain | None:
    """The drain that the machine was asked for; None if it was not asked."""
    try:
        return Drain(**json.loads(_drain_file(layout).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # Written by hand: what counts is that it is there.
        return Drain(0.0)


def end_drain(layout: Layout) -> None:
    """End a drain that was asked for: the machine takes new tasks again."""
    _drain_file(layout).unlink(missing_ok=True)


def _pid_file(layout: Layout) -> Path:
    """The file with the pid of the machine's supervisor."""
    return layout.root / "pid"


def _drain_file(layout: Layout) -> Path:
    """The file that tells the machine to take no new tasks."""
    return layout.root / "drain"


def _leads_to(link: Path, target: Path) -> bool:
    """Whether a symbolic link leads to exactly that target."""
    try:
        return link.readlink() == target
    except OSError:
        return False
