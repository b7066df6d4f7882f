"""Programs the stack needs: found on this machine, else brought from Debian, npm or Go, once.

Every installer is idempotent, holds a lock (two commands may run side by side) and fails with one sentence that says
what is missing and how to provide it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from protocol.errors import MissingTool

log = structlog.get_logger(__name__)

#: Seconds a package installation may take, downloads included.
_INSTALL_SECONDS = 900
#: apt asks nothing, and packages find a runlevel in which no service is started.
_APT_ENV = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}


def root() -> Path:
    """The project's folder: where `package.json` is."""
    return Path(__file__).resolve().parents[2]


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
        raise MissingTool(tool=tool, why=f"`{' '.join(map(str, command[:3]))} …` failed: {words}", fix=fix) from error
    return done.stdout


def npm_packages() -> Path:
    """`node_modules` as `package-lock.json` says; installs it if it is absent or older. Raises MissingTool."""
    folder, lock_file = root() / "node_modules", root() / "package-lock.json"
    wanted = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    mark = folder / ".sluice-lock"
    with locked(root() / ".sluice/cache/npm.lock"):
        if mark.exists() and mark.read_text() == wanted:
            return folder
        if shutil.which("npm") is None:
            debian("npm", "nodejs", program="npm")
        log.info("Installing npm packages.", action="npm_install")
        # No package needs its install script: anvil's only chooses between the binaries that npm has already chosen.
        run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            tool="anvil and the PoCo contracts",
            fix="Install Node.js 18 or later with npm, and let npm reach a registry.",
            cwd=root(),
        )
        mark.write_text(wanted)
    return folder


def debian(*packages: str, program: str) -> None:
    """Install Debian packages for `program`. Needs root; never starts or stops a system service on purpose."""
    fix = f"Install it: apt-get install {' '.join(packages)}."
    if shutil.which("apt-get") is None:
        raise MissingTool(tool=program, why="this is not a Debian system", fix=f"Install {program}.")
    if os.geteuid() != 0:
        raise MissingTool(tool=program, why="installing packages needs root", fix=fix)
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    with locked(root() / ".sluice/cache/apt.lock"):
        log.info("Installing Debian packages.", action="apt_install", packages=list(packages))
        try:
            run(install, tool=program, fix=fix)
        except MissingTool:
            # The lists may be absent (fresh image) or older than the mirror: fetch them and try once more.
            run(["apt-get", "update", "-q"], tool=program, fix=fix)
            run(install, tool=program, fix=fix)
