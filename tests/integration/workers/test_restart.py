"""`kill -9` of the computing process at awkward moments; the next process finds what the first left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from protocol.errors import NoSuchContainer
from protocol.results.error_result import MACHINE_FAILED, Failure, cause_code, error_digest
from protocol.wire import Assignment
from tests.integration.workers.conftest import IMAGE
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from tests.waiting import wait_until
from workers.task.compute import compute
from workers.task.replicate import Replicate, ReplicateStage
from workers.workbench import Workbench

RESULT = 'echo {\\"deterministic-output-path\\": \\"/iexec_out/r\\"} > /iexec_out/computed.json'


#: In an app's script: wait for `go_on`.
WAIT = "while [ ! -e /iexec_out/go ]; do sleep 1; done; rm /iexec_out/go"


def go_on(bench: Workbench) -> None:
    """Let the app of the task, which waits, go on."""
    (bench.layout.task(task_id(1)).outputs / "go").touch()


def task(script: str, **fields: object) -> Assignment:
    return assignment(1, image=IMAGE, params=json.dumps({"iexec_args": f"sh -c '{script}'"}), **fields)


@contextmanager
def killed(bench: Workbench, wanted: Assignment, moment: Callable[[], object]) -> Iterator[None]:
    """Have another process compute, and kill it with -9 once `moment` has come."""
    settings = bench.machine.settings
    arguments = [str(settings.home), str(settings.docker_host), wanted.model_dump_json()]
    process = subprocess.Popen([sys.executable, "-m", "tests.integration.workers.compute_apart", *arguments])
    try:
        wait_until(moment, 30, what="the moment to kill")
        yield
    finally:
        process.kill()
        process.wait()


def container(bench: Workbench) -> str | None:
    found = bench.engine.containers_of(WORKER_KEY.wallet)
    return found[0][1] if found else None


def running(bench: Workbench) -> bool:
    found = container(bench)
    try:
        return found is not None and bool(bench.engine.state(found).running)
    except NoSuchContainer:
        # Listed while the last test's container was being removed.
        return False


def journaled(bench: Workbench) -> Replicate:
    found = bench.journal.find(task_id(1))
    assert found is not None
    return found


def test_a_running_container_is_found_again_and_not_started_twice(bench: Workbench) -> None:
    wanted = task(f"echo once >> /iexec_out/r; {WAIT}; {RESULT}")
    with killed(bench, wanted, lambda: running(bench)):
        first = container(bench)
    assert running(bench)
    go_on(bench)
    assert compute(bench, wanted)
    assert journaled(bench).container_id == first
    assert (bench.layout.task(task_id(1)).outputs / "r").read_text() == "once\n"


def test_a_container_that_ended_while_nobody_looked_gives_its_result(bench: Workbench) -> None:
    wanted = task(f"echo once >> /iexec_out/r; {WAIT}; {RESULT}; echo printed")
    with killed(bench, wanted, lambda: running(bench)):
        pass
    go_on(bench)
    wait_until(lambda: not running(bench), 20, what="the end of the app")
    assert compute(bench, wanted)
    outputs = bench.layout.task(task_id(1)).outputs
    assert (outputs / "r").read_text() == "once\n"
    assert (outputs / "stdout.txt").read_text() == "printed\n"


def test_the_time_limit_counts_from_the_containers_start_across_a_restart(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = task("sleep 7200", category_seconds=3000)
    with killed(bench, wanted, lambda: running(bench)):
        pass
    # As if it had run for an hour already: counted from now, the limit would be 50 minutes away.
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    find = bench.engine.find
    monkeypatch.setattr(type(bench.engine), "find", lambda _, spec: replace(find(spec), started=long_ago))
    compute(bench, wanted)
    assert journaled(bench).digest == error_digest(Failure.APP_TIMEOUT)


def test_a_container_that_somebody_removed_is_run_anew_with_an_empty_folder(bench: Workbench) -> None:
    wanted = task(f"echo once >> /iexec_out/r; sleep 5; {RESULT}")
    with killed(bench, wanted, (bench.layout.task(task_id(1)).outputs / "r").exists):
        pass
    bench.engine.remove(container(bench) or "")
    assert compute(bench, wanted)
    assert (bench.layout.task(task_id(1)).outputs / "r").read_text() == "once\n"


def test_a_container_that_was_killed_from_outside_says_nothing_of_the_app(bench: Workbench) -> None:
    wanted = task("sleep 3600")
    with killed(bench, wanted, lambda: running(bench)):
        bench.engine.kill(container(bench) or "")
    compute(bench, wanted)
    assert journaled(bench).stage is ReplicateStage.FAILED
    assert cause_code(journaled(bench).cause) == MACHINE_FAILED
