"""Files that hold secrets: only their owner may read them, and nobody ever finds one half-written."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Put `text` in the place of what `path` holds, with mode 600."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def exports(settings: Mapping[str, str]) -> str:
    """Lines that a shell can source, sorted by name."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(settings.items()))
