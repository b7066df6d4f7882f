"""Files that hold secrets: only their owner may read them, and they are never half-written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from config.whole_files import write_whole


def write(path: Path, text: str) -> None:
    """Put `text` in the place of what `path` holds, with mode 600."""
    write_whole(path, text, mode=0o600)


def exports(settings: Mapping[str, str]) -> str:
    """Lines that a shell can source, sorted by name."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(settings.items()))
