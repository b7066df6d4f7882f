"""The project's own files, for tests that read all of them; what npm installs beside them is never entered."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files below `folder` whose names end with one of these, sorted."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in {"node_modules", "__pycache__"}]
        found += [f"{place}/{name}" for name in names if name[name.rfind(".") :] in suffixes]
    return [Path(path) for path in sorted(found)]
