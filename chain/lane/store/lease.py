"""Who may write for a wallet now: a lease with a fencing token, and how a dead holder is recognised.

    holder A   take ── fence 7 ─────────── paused ────────────────► write with fence 7: refused
    holder B                    take ── fence 8 ─► writes with 8

The token grows with every take and stands in the filter of every later write, so a holder that slept past its lease
finds its writes refused wherever the new holder has been.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from chain.lane.model.intent import LaneId


@dataclass(frozen=True, slots=True)
class LaneLease:
    """The right to run one lane, until it expires by the store's clock or another process takes a later fence."""

    lane: LaneId
    holder: str
    fence: int
    #: Why the lane is halted, if an operator has to decide something.
    halted: str | None = None
    #: What the lane waits for and cannot repair, as far as the last run knew.
    waiting: str | None = None


def new_holder() -> str:
    """A unique name for this process as holder of leases: host, pid, start time of the process, where its pid counts,
    random digits.
    """
    pid = os.getpid()
    return f"{socket.gethostname()}|{pid}|{_process_start(pid)}|{_where_pids_count()}|{secrets.token_hex(4)}"


def process_of(holder: str) -> str | None:
    """The process of a holder for people: `pid 12 on host`; None for a name that is none."""
    host, pid, *_ = (*holder.split("|"), "")
    return f"pid {pid} on {host}" if pid.isdigit() else None


def clock_of(holder: str) -> str:
    """A name for the machine, or container, whose clock a holder has; another one after a restart of either."""
    host, _, _, where, *_ = (*holder.split("|"), "", "", "", "")
    return f"{host}|{where}"


def holder_is_dead(holder: str) -> bool:
    """Whether `holder` is certainly a dead process of this machine, whose lease can be taken before it expires.

    Hosts may have the same name, and containers too: of those, a pid says nothing here.
    """
    _, pid, started, where, *_ = (*holder.split("|"), "", "", "", "")
    if where != _where_pids_count() or not pid.isdigit() or "?" in (started, where):
        return False
    return _process_start(int(pid)) not in (started, "?")


def _where_pids_count() -> str:
    """This boot of the kernel and the namespace of pids in it; `?` where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return "?"


def _process_start(pid: int) -> str:
    """Start time of a process in clock ticks of the kernel, `dead` if there is none, `?` where that cannot be known."""
    if not Path("/proc/self/stat").exists():
        return "?"
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return "dead"
    state, *fields = stat.rpartition(")")[2].split()
    # A zombie has run its last instruction.
    return "dead" if state == "Z" else fields[18]
