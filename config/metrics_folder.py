"""Where the processes of one scheduler count together: a folder with files of each, which `/metrics` adds up.

prometheus_client decides at its import whether values live in files: `share` comes before `config.metrics`.
"""

from __future__ import annotations

import os
from pathlib import Path

#: The library's own setting; children inherit it.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def share(folder: Path) -> None:
    """Count in `folder`, unless the environment names one. Files of processes that are gone are deleted."""
    folder = Path(os.environ.setdefault(VARIABLE, str(folder.absolute())))
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*_*.db"):
        # <kind of metric>_<process id>.db
        if not Path("/proc", file.stem.rpartition("_")[2]).exists():
            file.unlink(missing_ok=True)
