"""What holds for every unit test: no sockets, and the same generated examples in every run."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import ParamSpec, TypeVar

import pytest
import structlog
from eth_account import Account
from hypothesis import settings

#: Enough examples to find what we know can break, few enough that the unit tests stay a matter of seconds.
settings.register_profile("unit", max_examples=60, deadline=None, derandomize=True, database=None)
settings.load_profile("unit")

#: Everything that reaches out of the process; `socketpair` stays, event loops wake themselves with one.
_FORBIDDEN = ("connect", "connect_ex", "bind", "sendto")


#: Threads of an earlier integration test in the same process: a MongoDB client's that watch its server, and those by
#: which the API that all of its tests share looks after its health and tells Flower of steps.
_LEFT_RUNNING = ("pymongo_", "health", "probe", "relay")

P = ParamSpec("P")
T = TypeVar("T")


def _refusing(real: Callable[P, T]) -> Callable[P, T]:
    def refuse(*args: P.args, **kwargs: P.kwargs) -> T:
        if threading.current_thread().name.startswith(_LEFT_RUNNING):
            return real(*args, **kwargs)
        pytest.fail("A unit test opened a socket. Pass in what it needs, or move it to tests/integration.")

    return refuse


# For all of this folder at once, as the one below: set up for each of 6,000 tests, the two take seconds.
@pytest.fixture(autouse=True, scope="package")
def no_sockets() -> Iterator[None]:
    """Fail any unit test that connects, listens, or asks for a name."""
    with pytest.MonkeyPatch.context() as patch:
        for name in _FORBIDDEN:
            patch.setattr(socket.socket, name, _refusing(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", _refusing(socket.getaddrinfo))
        yield


@pytest.fixture(autouse=True, scope="module")
def logging_as_before() -> Iterator[None]:
    """A command sets up logging for its process: the tests of the next file log as if it had not run."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def cheap_keystores(monkeypatch: pytest.MonkeyPatch) -> None:
    """New keystores hash their password twice: the usual 262,144 times take a second, once in `test_init`."""
    monkeypatch.setattr(Account, "encrypt", partial(Account.encrypt, iterations=2))


@pytest.fixture(autouse=True, scope="package")
def no_settings_from_outside() -> Iterator[None]:
    """A shell that leads to a pool of its own must not change what a unit test sees."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SLUICE_")]:
            patch.delenv(name)
        yield
