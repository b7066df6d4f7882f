"""What the stack's Docker engine has on disk: every file of its folder, containerd's database with its freed pages and
the bundles of running containers among them.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from ops.stack import tools

#: The folder of the stack's engine: its data, sockets and log.
FOLDER = tools.root() / ".sluice" / "stack" / "docker"
#: Folders with no files of their own: layers as running containers see them, once more; the kernel's networks.
_NOT_KEPT = frozenset({"merged", "netns"})


@dataclass(frozen=True, slots=True)
class Kept:
    """Files, by their paths. Some go while they are read."""

    files: tuple[Path, ...]

    def holding(self, word: str) -> list[Path]:
        """The files that have this word anywhere."""
        return [path for path in self.files if word.encode() in content(path)]


def files_of_engine() -> Kept:
    """All files of the stack's engine now."""
    return Kept(tuple(files_in(FOLDER)))


def files_in(folder: Path) -> list[Path]:
    """All regular files below a folder, none by a link."""
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _NOT_KEPT]
        each = (Path(path) / name for name in names)
        found += [file for file in each if file.is_file() and not file.is_symlink()]
    assert found
    return found


def content(path: Path) -> bytes:
    """A file's bytes; none if it has gone."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def nonce() -> str:
    """A word that no earlier run has planted: what that left is not this one's."""
    return secrets.token_hex(8)
