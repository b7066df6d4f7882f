"""One app, from a container that may exist already to how it ended. The limit counts from the container's start.

A worker that was killed finds its container again by name and goes on from what became of it meanwhile:

    absent     start over, with an empty output folder
    created    start it
    running    wait for what is left of its time
    exited     take its exit, unless the engine went down meanwhile (code 255 is Docker's mark for that): start over
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from protocol.errors import EngineUnavailable, NoSuchContainer, NoSuchImage
from workers.container import Ended, Engine, seconds_ran
from workers.disk import DiskWatch
from workers.sandbox import ContainerSpec

log = structlog.get_logger(__name__)

#: Seconds to wait for an engine that went away, e.g. for its restart after an upgrade.
ENGINE_PATIENCE = 60
#: Exit code of a container whose end the engine did not see.
ENGINE_LOST = 255
#: Exit code of a container that was killed.
KILLED = 137


@dataclass(frozen=True, slots=True)
class Run:
    """One app run: what to run and what to do on the way."""

    engine: Engine
    spec: ContainerSpec
    #: Fetch the image; called only if the engine lacks it. Raises TaskFailure.
    pull: Callable[[], None]
    #: Empty the output folder.
    clear: Callable[[], None]
    #: Told the container's id before it starts.
    created: Callable[[str], None]
    #: Watches what the app takes of the disk; given what kills it.
    watch: Callable[[Callable[[], None]], DiskWatch]


def run_app(run: Run, *, resumed: bool) -> Ended:
    """Run the app to its end. The container remains, for its logs.

    `resumed`: a container of this task may exist. Raises TaskFailure from `pull` and `watch`, CannotStart,
    EngineUnavailable after ENGINE_PATIENCE seconds, NoSuchContainer if somebody removes it while it runs.
    """
    lost_engine = False

    def note(state: RetryCallState) -> None:
        nonlocal lost_engine
        lost_engine = True
        why = str(state.outcome.exception()) if state.outcome else None
        tries = state.attempt_number
        log.warning("Docker cannot do it now, trying again.", action="engine_retry", tries=tries, why=why)

    retrying = Retrying(
        retry=retry_if_exception_type(EngineUnavailable),
        wait=wait_exponential(multiplier=0.2, max=3),
        stop=stop_after_delay(ENGINE_PATIENCE),
        before_sleep=note,
        reraise=True,
    )
    return retrying(lambda: _found(run, lost_engine=lost_engine) if resumed or lost_engine else _fresh(run))


def _fresh(run: Run) -> Ended:
    """No container of this name exists: make one."""
    try:
        container = run.engine.create(run.spec)
    except NoSuchImage:
        run.pull()
        container = run.engine.create(run.spec)
    run.created(container)
    run.engine.start(container)
    return _await(run, container, run.spec.seconds)


def _found(run: Run, *, lost_engine: bool) -> Ended:
    """Go on with the container of this name, if there is one."""
    try:
        state = run.engine.state(run.spec.name)
    except NoSuchContainer:
        run.clear()
        return _fresh(run)
    container = run.spec.name
    log.info("Found the task's container again.", action="container_found", name=container, status=state["Status"])
    if state["Status"] == "created":
        run.engine.start(container)
        return _await(run, container, run.spec.seconds)
    if state["Running"]:
        return _await(run, container, run.spec.seconds - seconds_ran(state, datetime.now(UTC)))
    if lost_engine or state["ExitCode"] == ENGINE_LOST:
        # The engine took the container down with itself: its exit says nothing of the app.
        run.engine.remove(container)
        run.clear()
        return _fresh(run)
    return _ended(run, container, killed=False)


def _await(run: Run, container: str, seconds: float) -> Ended:
    with run.watch(lambda: run.engine.kill(container)) as disk:
        code = run.engine.wait(container, seconds)
    disk.raise_if_over()
    if code is None:
        log.info("The app's time is over.", action="app_timeout", container=container, seconds=run.spec.seconds)
        run.engine.kill(container)
    return _ended(run, container, killed=code is None)


def _ended(run: Run, container: str, *, killed: bool) -> Ended:
    state = run.engine.state(container)
    code = int(state["ExitCode"])
    # A worker that was killed after its own kill of the container finds only this.
    over_time = code == KILLED and seconds_ran(state, datetime.now(UTC)) >= run.spec.seconds
    return Ended(code, bool(state["OOMKilled"]), timed_out=killed or over_time)
