"""A Docker engine: the one that runs already, else Debian's, started by us with its own data and socket."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import DockerException

from ops.stack import gvisor, tools
from ops.stack.process import Process, Program, find, find_pid
from ops.stack.servers import docker_leftovers
from protocol.errors import MissingTool, NotReady
from workers.sandbox.network.bridge import bridge_name
from workers.sandbox.network.name_servers import DAEMON_JSON

#: Seconds: 2 measured with an empty data folder.
START_SECONDS = 60.0
#: Seconds an engine may take to stop its containers and itself.
STOP_SECONDS = 30.0
#: What an engine says that gave up on its containerd after 15 s of its own: on a busy machine the next one succeeds.
_GAVE_UP = "timeout waiting for containerd to start"
#: Engine API that every engine since 2019 speaks.
OLDEST_API = "1.40"
#: The system's own engine.
SYSTEM_ENGINE = "unix:///var/run/docker.sock"
#: Bytes of a socket's path that the kernel takes, less what the engine appends for its own sockets.
_SOCKET_PATH_BYTES = 107 - len("/containerd/containerd.sock.ttrpc")


@dataclass(frozen=True, slots=True)
class Docker:
    """A Docker engine; `process` is None when it is not ours."""

    host: str
    process: Process | None
    folder: Path | None = None

    def stop(self) -> None:
        """End the engine and its containers, if this stack started it; also what it left, should it be killed."""
        if self.process is None:
            return
        self.process.stop(timeout=STOP_SECONDS)
        if self.folder is not None:
            clear(self.folder)


def running(wished: str | None = None) -> str | None:
    """Address of an engine that answers: `wished`, else DOCKER_HOST, else the system's; None if none does."""
    candidates = [wished] if wished else [os.environ.get("DOCKER_HOST"), SYSTEM_ENGINE]
    return next((host for host in candidates if host and ready(host)), None)


def ready(host: str) -> bool:
    """Whether an engine answers at this address, e.g. unix:///var/run/docker.sock."""
    if not _listens(host):
        return False
    # With a version given, making the client asks nothing, so that there is one to close whatever happens.
    client = docker.DockerClient(base_url=host, timeout=5, version=OLDEST_API)
    try:
        return bool(client.ping())
    except (DockerException, OSError):
        return False
    finally:
        client.close()


def _listens(host: str) -> bool:
    """Whether somebody listens there, as far as that is seen without docker-py.

    docker-py leaves the Unix socket of a refused connection to the garbage collector, which complains of it.
    """
    scheme, _, path = host.partition("://")
    if scheme != "unix":
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def server() -> tuple[Path, str]:
    """(path of `dockerd`, where it is from); installs Debian's docker.io if it is absent. Raises MissingTool."""
    found = shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        tools.debian("docker.io", program="dockerd", instead="set SLUICE_DOCKER_HOST to an engine that runs")
        found = shutil.which("dockerd", path="/usr/sbin:/sbin")
    if found is None:
        raise MissingTool(
            tool="dockerd", why="Debian's docker.io did not bring it", fix="Start a Docker engine and set DOCKER_HOST."
        )
    return Path(found), "Debian's dockerd, started by us"


def program(folder: Path) -> tuple[Program, Path]:
    """(our own engine with everything under `folder`, the folder of its sockets)."""
    folder = folder.absolute()
    binary, _ = server()
    run_folder = _run_folder(folder)
    command: list[str | Path] = [
        binary,
        *("--host", f"unix://{run_folder}/docker.sock", "--data-root", str(folder / "data")),
        *("--exec-root", str(run_folder), "--pidfile", str(run_folder / "engine.pid")),
        # At info it writes several lines for every container.
        *("--log-level", "warn"),
        *_runtimes(),
    ]
    return Program("Docker engine", command, folder), run_folder


def _runtimes() -> list[str]:
    """Words of `dockerd` for runtimes besides its own: gVisor, where it is.

    None where the machine's daemon.json names runtimes: an engine that is told of them at two places does not start.
    """
    found = gvisor.program()
    own = DAEMON_JSON.read_text(errors="replace") if DAEMON_JSON.exists() else ""
    return ["--add-runtime", f"{gvisor.RUNTIME}={found}"] if found is not None and '"runtimes"' not in own else []


def start(folder: Path, *, host: str | None = None, seconds: float = START_SECONDS) -> Docker:
    """Use the engine at `host`, else our own if it runs, else a running one, else start our own under `folder`.

    Raises NotReady, MissingTool; starting one needs root.
    """
    own = find("Docker engine", folder.absolute() / "pid")
    theirs = running(host) if host or own is None else None
    if theirs is not None:
        return Docker(theirs, None)
    if host is not None:
        raise MissingTool(
            tool="The Docker engine", why=f"nothing answers at {host}", fix="Start it, or unset SLUICE_DOCKER_HOST."
        )
    if os.geteuid() != 0:
        raise MissingTool(
            tool="A running Docker engine",
            why="starting one needs root",
            fix="Start Docker, or run this as root, or set SLUICE_DOCKER_HOST.",
        )
    wanted, run_folder = program(folder)
    # Debian's package starts the system's engine where systemd runs; two would fight over one bridge.
    installed = running() if own is None else None
    if installed is not None:
        return Docker(installed, None)
    return Docker(address(folder), ensure(wanted, run_folder, seconds=seconds), folder.absolute())


def ensure(wanted: Program, run_folder: Path, *, seconds: float = START_SECONDS) -> Process:
    """Find the engine `wanted` running, with its sockets in `run_folder`, or start it; once more, for about so many
    seconds, if it ends because its containerd was slow. Raises NotReady.
    """
    socket_file = run_folder / "docker.sock"

    def answers() -> bool:
        """Whether the engine answers at its socket."""
        return socket_file.exists() and ready(f"unix://{socket_file}")

    def prepare() -> None:
        """Remove what a killed engine left in the folder of sockets."""
        run_folder.mkdir(parents=True, exist_ok=True)
        # Left by a killed engine; a new one would refuse to start beside them.
        _stop_containerd(run_folder)
        (run_folder / "engine.pid").unlink(missing_ok=True)

    deadline = time.monotonic() + seconds
    while True:
        try:
            return wanted.ensure(answers, seconds=seconds, before_start=prepare)
        except NotReady as error:
            if _GAVE_UP not in str(error) or time.monotonic() > deadline:
                raise


def address(folder: Path) -> str:
    """Where our own engine under `folder` listens."""
    return f"unix://{_run_folder(folder.absolute())}/docker.sock"


def clear(folder: Path) -> None:
    """End what an engine of ours under `folder` left behind: a killed one also leaves containers and mounts."""
    run_folder = _run_folder(folder.absolute())
    _stop_containerd(run_folder)
    docker_leftovers.end_containers(_containerd(run_folder) / "containerd.sock")
    for mounted in (run_folder, folder.absolute()):
        docker_leftovers.unmount(mounted.resolve())
    docker_leftovers.remove_bridge(bridge_name(str((folder.absolute() / "data").resolve())))


def _run_folder(folder: Path) -> Path:
    """Where the engine's sockets are: in `folder` unless that is too deep, then in /run under a name of its own."""
    run_folder = folder / "run"
    if len(str(run_folder).encode()) <= _SOCKET_PATH_BYTES:
        return run_folder
    return Path("/run/sluice") / hashlib.sha256(str(folder).encode()).hexdigest()[:12]


def _containerd(run_folder: Path) -> Path:
    """Where an engine of ours has its containerd's socket and pid."""
    return run_folder / "containerd"


def _stop_containerd(run_folder: Path) -> None:
    """End the containerd that an engine of ours started, if it outlived it (`kill -9`)."""
    pid_file = _containerd(run_folder) / "containerd.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    left = find_pid("containerd", pid, word=str(run_folder))
    if left is not None:
        left.stop(timeout=STOP_SECONDS)
    pid_file.unlink(missing_ok=True)
