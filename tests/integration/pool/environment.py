"""The environment of a pool's processes, for commands run beside them."""

from __future__ import annotations

import shlex

from bench.rig.bench_pool import BenchPool
from ops.pool.local import SETTINGS
from tests.integration import forged
from tests.integration.forged import Ended


def scheduler_environment(bench_pool: BenchPool) -> dict[str, str]:
    """The `SLUICE_…` variables that the pool's scheduler was started with."""
    settings = bench_pool.pool.home / "scheduler" / SETTINGS
    lines = [shlex.split(line)[1] for line in settings.read_text().splitlines() if line.startswith("export ")]
    return dict(line.split("=", 1) for line in lines)


def scheduler_command(bench_pool: BenchPool, *words: str, **env: str) -> Ended:
    """How `sluice WORDS` ends on the scheduler's machine. `env`: variables that it has besides."""
    return forged.sluice(*words, env=scheduler_environment(bench_pool) | env)
