"""The pages people read, as programs: their code blocks, as printed, and what a test machine cannot run of them.

A section (`##`) is one session: its shell blocks run in order in one shell. A block of another language, whose first
line names a file (`// buy.mjs`, `# pool.env`), is that file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: A page that needs a pool with enclaves: `make test-sms` runs it.
CONFIDENTIAL = ROOT / "docs/quickstart/confidential.md"
#: Languages whose blocks are shell commands, or files that commands use. A block without a language is a drawing or
#: output, and runs nothing.
SHELL, FILES, PICTURE = "sh", frozenset({"js", "env", "ini", "toml", "yaml"}), ""
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:\. \S+ && )?sluice(?: [^`]*)?)`")
_NAMED = re.compile(r"(?://|#) (\S+\.\w+)$")

#: Commands that no test runs, by how they begin, and why.
NOT_RUN = {
    ".ci/": "it runs this test",
    "make test": "this is it",
    "make image-test": "makes a base image and builds on it, which takes minutes; it is run by itself",
    "make check": "`.ci/run` runs it before this",
    "make bench": "takes minutes; `bench/` has tests of its parts",
    "python3 -m venv /opt/sluice": "writes outside the clone and downloads 155 MB",
    "docker run": "needs the image; `make image-test` builds and runs it",
    "sluice stack up": "starts servers on ports that others may use; tests/integration/stack does it on its own",
    "sluice stack down": "would stop the servers of all tests",
}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `line` is where it begins in the page, `section` the heading above it."""

    page: Path
    line: int
    section: str
    language: str
    text: str

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """Name of the file that the block is, by its first line."""
        found = _NAMED.match(self.text.partition("\n")[0])
        return found[1] if found and self.language in FILES else None

    def commands(self) -> Iterator[str]:
        """Lines of a shell block, continued ones joined."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.strip():
                yield line.strip()


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, at.start()) + 1, _section(text[: at.start()]), at[1], at[2])
        for at in _BLOCK.finditer(text)
    ]


def _section(above: str) -> str:
    """The last heading of the second level in the text above a block."""
    return above.rpartition("\n## ")[2].partition("\n")[0] if "\n## " in above else ""


def inline_commands(page: Path) -> list[str]:
    """Every `sluice …` in the running text."""
    return [found.partition("#")[0].strip() for found in _INLINE.findall(_BLOCK.sub("", page.read_text()))]


def not_run(command: str) -> str | None:
    """Why a command is not run; None if it is."""
    return next((why for start, why in NOT_RUN.items() if command.startswith(start)), None)
