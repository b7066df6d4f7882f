"""What can be reached from inside a container: connections made in its network namespace, by this process.

Needs no program in the container, but a worker that is root on the engine's machine and sees its processes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

_Found = TypeVar("_Found")
#: Host address and port.
Target = tuple[str, int]

#: Seconds for one connection: a refused packet is answered at once, only a dropped one takes that long.
CONNECT_SECONDS: Final = 2.0
#: setns(2): the namespace must be one of a network.
_CLONE_NEWNET: Final = 0x40000000
#: unix(7): process, user and group of who listens at the other end.
_PEER: Final = struct.Struct("3i")


def reached(pid: int, own_address: str, targets: Sequence[Target]) -> list[bool] | None:
    """Which TCP targets answer, if only to refuse, in the network namespace of process `pid`.

    None if this process cannot enter it, or if it is another's: it does not have `own_address`.
    """
    return inside(pid, own_address, lambda: [_answers(target) for target in targets])


def inside(pid: int, own_address: str, look: Callable[[], _Found]) -> _Found | None:
    """What `look` returns in the network namespace of process `pid`; None if this process cannot enter it, or if it is
    another's: it does not have `own_address`.
    """

    def enter() -> _Found | None:
        """Body of the thread, which alone is moved into the other network namespace."""
        return look() if _enter(pid) and is_own_address(own_address) else None

    # The namespace is this thread's own, and ends with it.
    with ThreadPoolExecutor(1, "egress") as thread:
        return thread.submit(enter).result()


def why_closed(engine: Path) -> str | None:
    """Why this process can enter the network of no container of the engine that listens at this socket, in words; None
    if it can, or if that cannot be told.
    """
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(str(engine))
            pid, _, _ = _PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        except OSError:
            # Whoever asks the engine for something is told.
            return None
    return why_apart(pid)


def why_apart(pid: int) -> str | None:
    """As `why_closed`, for an engine that process `pid` has begun; 0: it is none of this process's PID namespace."""
    try:
        if pid == 0 or not Path(f"/proc/{pid}/ns/pid").samefile("/proc/self/ns/pid"):
            return "it has a PID namespace of its own, in which the containers' processes have no or other numbers"
    except FileNotFoundError:
        # Who has begun the engine has ended; the engine runs on.
        return None
    except PermissionError:
        return "it may not look at the engine's processes (capability SYS_PTRACE)"
    with ThreadPoolExecutor(1, "egress") as thread:
        entered = thread.submit(_enter, pid).result()
    return None if entered else "it may not enter other processes' networks (capabilities SYS_ADMIN and SYS_PTRACE)"


def _enter(pid: int) -> bool:
    """Move this process into another's network namespace; whether that worked."""
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return int(ctypes.CDLL(None).setns(namespace, _CLONE_NEWNET)) == 0
    finally:
        os.close(namespace)


def is_own_address(address: str) -> bool:
    """Whether an address belongs to this thread's network namespace."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _answers(target: Target) -> bool:
    """Whether a connection gets through to the target, accepted or refused there."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            return probe.connect_ex(target) in {0, errno.ECONNREFUSED}
        except OSError:
            return False
