"""`sluice` as an operator types it: a process of its own, with a bounded time to end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

#: Seconds for a command that only has to refuse: Python starts slowly on a busy machine.
REFUSAL_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines of standard error that are the command's last word, without what it logged before."""
        return [line for line in self.err.splitlines() if line.startswith("sluice: ")]


def sluice(*words: str, env: Mapping[str, str]) -> Ended:
    """Run `sluice WORDS` with these settings and no others; fails the test if it does not end by itself."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", *words],
        env={**inherited, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=REFUSAL_SECONDS,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
