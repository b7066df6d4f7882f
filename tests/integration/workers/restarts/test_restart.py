"""`kill -9` of the computing process at awkward moments; the next process finds what the first left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from unittest.mock import ANY

import docker
import pytest

from protocol.errors import NoSuchContainer
from protocol.results.error_result import UNCLEAR_END, Failure, cause_code, error_digest
from protocol.wire import Assignment
from tests.integration.workers.conftest import IMAGE
from tests.integration.workers.scripts import zipped
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from tests.waiting import wait_until
from workers.context import WorkerContext
from workers.sandbox import run_app
from workers.sandbox.engine.run_time import since_start
from workers.task.compute import compute
from workers.task.replicate import Replicate, ReplicateStage

RESULT = 'echo {\\"deterministic-output-path\\": \\"/iexec_out/r\\"} > /iexec_out/computed.json'


#: In an app's script: wait for `go_on`.
WAIT = "while [ ! -e /iexec_out/go ]; do sleep 1; done; rm /iexec_out/go"


def go_on(context: WorkerContext) -> None:
    """Let the app of the task, which waits, go on."""
    (context.layout.task(task_id(1)).outputs / "go").touch()


def task(script: str, **fields: object) -> Assignment:
    return assignment(1, image=IMAGE, params=json.dumps({"iexec_args": f"sh -c '{script}'"}), **fields)


@contextmanager
def killed(context: WorkerContext, wanted: Assignment, moment: Callable[[], object]) -> Iterator[None]:
    """Have another process compute, and kill it with -9 once `moment` has come."""
    settings = context.machine.settings
    arguments = [str(settings.home), str(settings.docker_host), wanted.model_dump_json()]
    process = subprocess.Popen([sys.executable, "-m", "tests.integration.workers.restarts.compute_apart", *arguments])
    try:
        wait_until(moment, 30, what="the moment to kill")
        yield
    finally:
        process.kill()
        process.wait()


def container(context: WorkerContext) -> str | None:
    found = context.engine.containers_of(WORKER_KEY.wallet)
    return found[0][1] if found else None


def running(context: WorkerContext) -> bool:
    found = container(context)
    try:
        return found is not None and bool(context.engine.state(found).running)
    except NoSuchContainer:
        # Listed while the last test's container was being removed.
        return False


def journaled(context: WorkerContext) -> Replicate:
    found = context.journal.find(task_id(1))
    assert found is not None
    return found


def test_a_running_container_is_found_again_and_not_started_twice(context: WorkerContext) -> None:
    wanted = task(f"echo once >> /iexec_out/r; {WAIT}; {RESULT}")
    with killed(context, wanted, lambda: running(context)):
        first = container(context)
    assert running(context)
    go_on(context)
    assert compute(context, wanted)
    assert journaled(context).container_id == first
    assert zipped(context)["r"] == b"once\n"


def test_a_container_that_ended_while_the_machine_was_down_gives_its_result(context: WorkerContext) -> None:
    wanted = task(f"echo once >> /iexec_out/r; {WAIT}; {RESULT}; echo printed")
    with killed(context, wanted, lambda: running(context)):
        pass
    go_on(context)
    wait_until(lambda: not running(context), 20, what="the end of the app")
    assert compute(context, wanted)
    assert zipped(context)["r"] == b"once\n"
    assert zipped(context)["stdout.txt"] == b"printed\n"


def test_the_time_limit_counts_from_the_containers_start_across_a_restart(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = task("sleep 7200", category_seconds=3000)
    with killed(context, wanted, lambda: running(context)):
        pass
    state = context.engine.state(container(context) or "")
    since = since_start(state.process, state.container)
    assert since is not None
    assert 0 <= since < 3000
    # As if it had run for an hour already: counted from now, the limit would be 50 minutes away.
    monkeypatch.setattr(run_app, "since_start", lambda *_: 3600.0)
    compute(context, wanted)
    assert journaled(context).digest == error_digest(Failure.APP_TIMEOUT)


def test_a_container_that_was_removed_is_run_anew_with_an_empty_folder(context: WorkerContext) -> None:
    wanted = task(f"echo once >> /iexec_out/r; sleep 5; {RESULT}")
    with killed(context, wanted, (context.layout.task(task_id(1)).outputs / "r").exists):
        pass
    context.engine.remove(container(context) or "")
    assert compute(context, wanted)
    assert zipped(context)["r"] == b"once\n"


def test_a_container_that_was_killed_from_outside_says_nothing_of_the_app(context: WorkerContext) -> None:
    wanted = task("sleep 3600")
    with killed(context, wanted, lambda: running(context)):
        context.engine.kill(container(context) or "")
    compute(context, wanted)
    assert journaled(context).stage is ReplicateStage.FAILED
    assert cause_code(journaled(context).cause) == UNCLEAR_END


#: Ends in good order when it is asked to, with half of its result written.
POLITE = (
    f'trap "exit 0" TERM; {RESULT}; echo half > /iexec_out/r; touch /iexec_out/begun; {WAIT};'
    " rm /iexec_out/begun; echo whole > /iexec_out/r"
)


def begun(context: WorkerContext) -> bool:
    return (context.layout.task(task_id(1)).outputs / "begun").exists() and running(context)


def stop(context: WorkerContext) -> str:
    """What an operator's `docker stop` does to the app, and the engine itself as it shuts down. Its container's id."""
    stopped = container(context) or ""
    with closing(docker.APIClient(base_url=context.engine.host)) as engine:
        engine.stop(stopped)
    return stopped


def whole(context: WorkerContext) -> None:
    assert journaled(context).stage is ReplicateStage.COMPUTED
    assert zipped(context) == {"computed.json": ANY, "r": b"whole\n"}


def test_an_app_that_is_stopped_and_ends_in_good_order_is_run_anew(context: WorkerContext) -> None:
    def operate() -> None:
        wait_until(lambda: begun(context), 30, what="the app to begin")
        stopped = stop(context)
        wait_until(lambda: container(context) != stopped and begun(context), 60, what="another container")
        go_on(context)

    with ThreadPoolExecutor(1) as pool:
        operated = pool.submit(operate)
        compute(context, task(POLITE))
        operated.result()
    whole(context)


def test_an_app_that_was_stopped_while_the_machine_was_down_is_run_anew(context: WorkerContext) -> None:
    def operate() -> None:
        wait_until(lambda: begun(context), 60, what="another container")
        go_on(context)

    wanted = task(POLITE)
    with killed(context, wanted, lambda: begun(context)):
        pass
    stop(context)
    with ThreadPoolExecutor(1) as pool:
        operated = pool.submit(operate)
        compute(context, wanted)
        operated.result()
    whole(context)
