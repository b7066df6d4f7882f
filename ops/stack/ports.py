"""Ports of the local stack: all below 32768, where the kernel's ephemeral ports begin."""

from __future__ import annotations

import random
import socket

from protocol.errors import PortTaken

#: Range for ports that tests choose: above the stack's own, below the kernel's ephemeral range (32768 and up).
_FIRST, _LAST = 20_000, 32_767
_HOST = "127.0.0.1"


def is_free(port: int, host: str = _HOST) -> bool:
    """Whether nobody listens on this TCP port of a loopback address (or of all addresses)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT of an earlier run is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def answers(port: int, host: str = _HOST) -> bool:
    """Whether somebody accepts connections on this TCP port of a loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def free_port(row: int = 1) -> int:
    """The first of `row` free ports in a row, at random, so that test runs side by side rarely choose the same ones."""
    for port in random.SystemRandom().sample(range(_FIRST, _LAST - row), 200):
        if all(is_free(port + offset) for offset in range(row)):
            return port
    raise PortTaken(port=f"{_FIRST}-{_LAST}", part="a test", setting="nothing")


def require_free(port: int, *, part: str, setting: str, host: str = _HOST) -> None:
    """Raise PortTaken if another program listens where `part` should. `setting` moves the part elsewhere."""
    if not is_free(port, host):
        raise PortTaken(port=port, part=part, setting=setting)
