"""What holds for every unit test: no sockets, and the same generated examples in every run."""

from __future__ import annotations

import socket
from typing import NoReturn

import pytest
from hypothesis import settings

#: Enough examples to find what we know can break, few enough that the unit tests stay a matter of seconds.
settings.register_profile("unit", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("unit")

#: Everything that reaches out of the process; `socketpair` stays, event loops wake themselves with one.
_FORBIDDEN = ("connect", "connect_ex", "bind", "sendto")


def _refuse(*_: object, **__: object) -> NoReturn:
    pytest.fail("A unit test opened a socket. Pass in what it needs, or move it to tests/integration.")


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail any unit test that connects, listens, or asks for a name."""
    for name in _FORBIDDEN:
        monkeypatch.setattr(socket.socket, name, _refuse)
    monkeypatch.setattr(socket, "getaddrinfo", _refuse)
