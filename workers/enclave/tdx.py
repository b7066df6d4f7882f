"""TDX enclaves: the worker, its engine and all containers of a task are in one guest of a TDX host (iexec-worker 9.2).

    secret service ──► session at the service that attests
    agent ── quote of this guest ──► there ──► session file ──► pre-compute, app, post-compute

The agent is iExec's program. What it gets is in memory for a moment, and never on a disk.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

from pydantic import ValidationError

from config.values.variables import PREFIX
from protocol.enclave.session import Session, SessionPlace
from protocol.errors import Unavailable
from protocol.poco.tags import TDX_BITS, make_tag
from protocol.types import Hash32
from protocol.wire import Assignment
from workers.data.layout import Layout
from workers.enclave import ask, launcher, surrounding
from workers.enclave.port import Enclave, Host, Work
from workers.enclave.session_enclave import SessionEnclave
from workers.enclave.sms_api import SmsApi
from workers.sandbox.engine.container import Engine

#: What a guest of a TDX host has: the device that asks the processor for reports, and where the kernel makes quotes.
_DEVICE, _QUOTES = "dev/tdx_guest", "sys/kernel/config/tsm/report"
#: iExec's agent, which proves to the service what it runs in, and gets the session.
_AGENT = "usr/local/bin/secret_provider_agent"
#: A file system in memory.
_MEMORY = "dev/shm"
#: The machine's own.
MEMORY: Final = Path("/") / _MEMORY
#: Begin of the name of a folder there that has one session.
_FOLDER: Final = "sluice-session-"
#: What a guest needs: sentences for what is missing, by path.
_PARTS: Final = {
    _DEVICE: "no TDX guest (/dev/tdx_guest is absent)",
    _QUOTES: "no quotes by the kernel (/sys/kernel/config/tsm/report is absent: Linux 6.7 or later, with configfs)",
    _AGENT: f"no agent for sessions (/{_AGENT} is absent)",
    _MEMORY: f"no file system in memory (/{_MEMORY} is absent)",
}
#: Seconds the agent may take: a quote, and one answer of the service.
AGENT_SECONDS: Final = 60.0
#: How the agent checks the service in turn: not at all, as with iExec's worker. The service's address comes from the
#: pool's secret service.
_VERIFIER: Final = "nullverifier"
#: Bytes of a session file at most: all its secrets, and the addresses of a bulk's datasets.
_FILE_BYTES: Final = 2**24


class Guest(Protocol):
    """This machine as a guest of a TDX host."""

    def missing(self) -> list[str]:
        """What this machine lacks to run enclaves, in words."""

    def session(self, place: SessionPlace) -> Session:
        """Fetch the session from the attestation service, which has to trust this guest. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class AgentGuest:
    """A `Guest` that runs iExec's agent. `root`: of the file system."""

    root: Path = Path("/")

    def missing(self) -> list[str]:
        """What this machine lacks to run enclaves, in words."""
        return [words for path, words in _PARTS.items() if not (self.root / path).exists()]

    def session(self, place: SessionPlace) -> Session:
        """Fetch the session from the attestation service by iExec's agent. Raises Unavailable."""
        with _in_memory(self.root / _MEMORY) as folder:
            file = folder / "session.json"
            asked = ["-e", place.secret_provisioning_url, "-i", place.session_id, "-s", file.name, "-v", _VERIFIER]
            try:
                # What it prints may hold secrets.
                ended = subprocess.run(
                    [self.root / _AGENT, *asked],
                    cwd=folder,
                    # The machine's own settings may hold its wallet's key.
                    env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=AGENT_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise _no_session(f"took more than {AGENT_SECONDS:.0f} s") from None
            except OSError as error:
                raise _no_session(f"cannot be started ({type(error).__name__})") from error
            if ended.returncode != 0:
                raise _no_session(f"ended with exit code {ended.returncode}")
            return _read(file)


def forget_killed(memory: Path) -> None:
    """Delete the sessions that killed processes have left in a file system: those whose lock nobody has."""
    for left in memory.glob(f"{_FOLDER}*"):
        handle = _lock(left)
        if handle is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(handle)


@contextmanager
def _in_memory(memory: Path) -> Iterator[Path]:
    """A folder in memory for one session, removed after the block. The folders of killed processes, whose locks the
    kernel has released, are removed first.
    """
    forget_killed(memory)
    with TemporaryDirectory(prefix=_FOLDER, dir=memory) as made:
        handle = _lock(Path(made))
        try:
            yield Path(made)
        finally:
            if handle is not None:
                os.close(handle)


def _lock(folder: Path) -> int | None:
    """An open file that holds the folder's lock until it is closed; None if another has it, or there is no folder."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _read(file: Path) -> Session:
    """The session in the agent's file. Raises Unavailable."""
    try:
        with file.open("rb") as source:
            return Session.model_validate_json(source.read(_FILE_BYTES))
    except OSError as error:
        raise _no_session("left no session") from error
    except ValidationError:
        # Its words would repeat what it read.
        raise _no_session("left what is no session") from None


def _no_session(why: str) -> Unavailable:
    """The error for an agent that got no session."""
    return Unavailable(what="the agent for sessions", why=f"it {why}")


@dataclass(frozen=True, slots=True)
class Tdx:
    """A `Framework` of attested enclaves."""

    service: SmsApi
    guest: Guest

    @property
    def tag(self) -> Hash32:
        """The bits of a tag that it serves."""
        return make_tag(*TDX_BITS)

    def require(self, engine: Engine, layout: Layout) -> None:
        """Raise BadSetting unless it can be run with this engine, EngineUnavailable."""
        surrounding.require_reach(engine)
        launcher.require(engine, layout)

    def enter(self, work: Work, host: Host) -> Enclave:
        """The `Enclave` of this replicate, with a session that is asked for now. Raises TaskDeclined."""
        sessions = _Attested(self.service, self.guest)
        return SessionEnclave(work, host, ask.take_session(sessions, work.assignment, work.deadline))


@dataclass(frozen=True, slots=True)
class _Attested:
    """`Sessions` that the attestation service gives to this guest."""

    service: SmsApi
    guest: Guest

    def open_session(self, assignment: Assignment) -> SessionPlace:
        """A new session, in place of an earlier one. Raises NoSession, Unavailable."""
        return self.service.open_session(assignment)

    def take_session(self, place: SessionPlace) -> Session:
        """The content of the session, which this guest fetches from the attestation service. Raises Unavailable."""
        return self.guest.session(place)

    def store_token(self) -> None:
        """Store what the service wants every worker to have. Raises Unavailable."""
        self.service.store_token()
