"""`make clean` in a clone in which a worker machine and a scheduler run: what is theirs stays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
#: Made by `make demo`, `make test` and `make bench`, in .sluice.
BUILT = (
    "demo/scheduler/token.secret",
    "demo/worker-1/worker/0x1/lane.db",
    "stack/mongodb/data/x",
    "stack.json",
    "stack.env",
    "bench/a/x",
)
#: Of a live machine, a scheduler and a secret service with the default SLUICE_HOME; and downloads.
LIVE = (
    "worker/0x1/journal.db",
    "worker/0x1/lane.db",
    "worker/0x1/tasks/0x2/result.zip",
    "token.secret",
    "admin.token",
    "sms.keys",
    "run/worker.pid",
    "log/worker.log",
    "cache/poco.json",
    "cache/uv/__pycache__/x.pyc",
)


def test_make_clean_removes_what_was_built_and_nothing_of_a_live_machine(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    others = ("config/__pycache__/a.pyc", ".venv/bin/nothing", ".mypy_cache/x")
    for name in (*(f".sluice/{name}" for name in (*BUILT, *LIVE)), *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    done = subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, text=True, check=True)
    home = tmp_path / ".sluice"
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()) == sorted(LIVE)
    assert not any((tmp_path / name).exists() for name in others)
    kept = {line.removeprefix("kept: .sluice/") for line in done.stdout.splitlines() if line.startswith("kept: ")}
    assert kept == {name.partition("/")[0] for name in LIVE}


def test_make_clean_removes_nothing_while_servers_may_still_run(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    sluice, data = tmp_path / ".venv/bin/sluice", tmp_path / ".sluice/stack/mongodb/pid"
    for path in (sluice, data):
        path.parent.mkdir(parents=True)
    data.write_text("of a server that runs")
    sluice.write_text("#!/bin/sh\n[ \"$1\" = demo ] || { echo 'sluice: Setting SLUICE_X is wrong.' >&2; exit 2; }\n")
    sluice.chmod(0o755)
    done = subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Nothing was removed" in done.stderr
    assert (sluice.exists(), data.exists()) == (True, True)
