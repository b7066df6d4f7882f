"""gVisor's `runsc`, a container runtime with a kernel of its own: found on PATH, or built once on request."""

from __future__ import annotations

import shutil
from pathlib import Path

from ops.stack.go_modules import GoProgram

#: Its name, as a program and as an engine's runtime.
RUNTIME = "runsc"
GVISOR = GoProgram(
    RUNTIME,
    Path(__file__).parent / "gvisor",
    "gvisor.dev/gvisor/runsc",
    takes="gVisor's runsc (5 minutes)",
    fix="Put gVisor's `runsc` on PATH.",
    static=True,
    flags=("-ldflags", "-X gvisor.dev/gvisor/runsc/version.version=160fafc42237"),
)


def program() -> Path | None:
    """The `runsc` of this machine: the one on PATH, else the one that was built; None if there is none."""
    on_path = shutil.which(RUNTIME)
    return Path(on_path) if on_path else GVISOR.built()


def build() -> Path:
    """gVisor's runsc, built if there is none (5 minutes). Raises MissingTool."""
    return program() or GVISOR.build()


if __name__ == "__main__":
    build()
