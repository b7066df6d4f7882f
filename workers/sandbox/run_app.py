"""One app, from a container that may exist already to how it ended. The limit counts from the container's start.

A worker that was killed finds its container again by name and goes on from what became of it meanwhile:

    absent     start over, with an empty output folder
    created    start it (with an allow list of domains, or variables that it is handed: start over)
    running    wait for what is left of its time
    exited     take its exit, unless the engine or the machine went down meanwhile (code 255 is Docker's mark for an
               engine that did, and the launcher's for a worker that was killed while it sent variables), or the engine
               tells that somebody stopped it, or cannot tell: start over

An engine that does not answer, or an image or container that another program removed meanwhile (pruning by a timer is
common): the same, while the task has the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from protocol.errors import ContainerRefused, EngineTrouble, EngineUnavailable, NoSuchContainer, NoSuchImage
from workers.data import verified
from workers.sandbox.disk import DiskWatch
from workers.sandbox.engine import given_folders
from workers.sandbox.engine.container import Engine
from workers.sandbox.engine.container_state import ContainerExit, ContainerState
from workers.sandbox.engine.run_time import since_start
from workers.sandbox.images.image_words import FittingImage
from workers.sandbox.memory import MemoryWatch
from workers.sandbox.spec import ContainerSpec
from workers.task.outcome.verdict import KILLED

log = structlog.get_logger(__name__)

#: Seconds to wait for an engine that went away, e.g. for its restart after an upgrade.
ENGINE_SECONDS: Final = 60.0
#: Times a container is made anew because it, its image or the engine went away meanwhile.
RESTARTS: Final = 12
#: Seconds before another try: the first, and the longest; each is twice the one before.
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 3.0
#: Seconds between checks of a container that was killed for a reason not known yet: the engine learns that memory ran
#: out apart from the container's end, and on a busy machine seconds after it. Without that, the task is declined,
#: so that only a machine in trouble waits for all of them.
LATE_CAUSE_PAUSES: Final = (0.1, 0.4, 1.5, 4.0, 10.0)
#: Exit code of a container whose end the engine did not see, or whose variables did not come (`handed`).
ENGINE_LOST: Final = 255


@dataclass(frozen=True, slots=True)
class AppRun:
    """One app run: what to run and what to do on the way."""

    engine: Engine
    spec: ContainerSpec
    #: The image's name on the engine, if it has been fetched before, and else after fetching it. Raises TaskFailure.
    known_image: Callable[[], str | None]
    fetch_image: Callable[[], str]
    #: The spec with what the container may reach now. Raises RefusedHere.
    pinned: Callable[[ContainerSpec], ContainerSpec]
    #: Empty the output folder.
    clear: Callable[[], None]
    #: Ids of the GPUs for a container that is made before the block ends. Raises EngineUnavailable.
    gpus: Callable[[], AbstractContextManager[tuple[str, ...]]]
    #: Room for so many bytes of volumes while the container is made. Raises TaskDeclined, EngineUnavailable.
    room: Callable[[int], AbstractContextManager[None]]
    #: Called with the id of a container that was made, before it starts.
    created: Callable[[str], None]
    #: Called with the id of a container that an earlier attempt left, before anything is done with it.
    found: Callable[[str], None]
    #: Watches what the app in this container writes, and kills it beyond its limits.
    watch: Callable[[str], DiskWatch]
    #: Watches whose limit the memory of this container, which has not started yet, reaches.
    memory: Callable[[str], MemoryWatch]
    #: Waits so many seconds. Raises TaskDeclined if the task ends meanwhile.
    wait: Callable[[float], None]
    #: The same before the app is started over, for this reason. Raises TaskDeclined also if it has no time for that.
    wait_before_retry: Callable[[float, str], None]


@dataclass(slots=True)
class _Tries:
    """Counts failed tries of one run, and says how long to wait."""

    #: Whether the engine was away, or too slow to answer: it may have taken containers down with itself.
    lost_engine: bool = False
    made: int = 0
    #: Failures since the engine last ran or pulled something, and when the first of them was (monotonic seconds).
    in_a_row: int = 0
    since: float = 0.0

    def note(self, trouble: Exception) -> bool:
        """Count a failure; returns whether no further try follows."""
        if self.in_a_row == 0:
            self.since = time.monotonic()
        self.in_a_row += 1
        # An engine that answers with an error is there.
        self.lost_engine |= isinstance(trouble, EngineUnavailable) and not isinstance(trouble, EngineTrouble)
        away_for_long = isinstance(trouble, EngineUnavailable) and time.monotonic() >= self.since + ENGINE_SECONDS
        return away_for_long or self.made > RESTARTS

    @property
    def seconds(self) -> float:
        """How long to wait now."""
        return float(min(FIRST_PAUSE * 2 ** (self.in_a_row - 1), LONGEST_PAUSE))


def seconds_needed(engine: Engine, container: str | None, seconds: float) -> float:
    """Seconds that an app of at most `seconds` needs yet, by what an earlier attempt has left of it: none if it has
    ended, all if it has to start, or to start over. `container`: that attempt's, if it came to have one.
    """
    if container is None:
        return seconds
    try:
        state = engine.state(container)
        if state.running:
            return max(seconds - _ran(engine, state), 0.0)
    except (EngineUnavailable, NoSuchContainer):
        return seconds
    return seconds if never_ended(state) else 0.0


def run_app(run: AppRun, *, resumed: bool) -> ContainerExit:
    """Run the app to its end and read what it printed. The container remains.

    `resumed`: a container of this task may exist. Raises CannotStart, ContainerRefused, RefusedHere; TaskFailure from
    `fetch_image`, `wait`, `wait_before_retry` and `watch`; EngineUnavailable, NoSuchContainer, NoSuchImage after
    ENGINE_SECONDS or RESTARTS.
    """
    tries = _Tries()
    while True:
        try:
            return _found(run, tries) if resumed else _fresh(run, tries)
        except (EngineUnavailable, NoSuchContainer, NoSuchImage) as trouble:
            if tries.note(trouble):
                raise
            log.warning("Trying again.", action="engine_retry", tries=tries.in_a_row, why=str(trouble))
            if isinstance(trouble, EngineUnavailable):
                run.wait(tries.seconds)
            else:
                run.wait_before_retry(tries.seconds, str(trouble))
            resumed = True


def _fresh(run: AppRun, tries: _Tries) -> ContainerExit:
    """Make a container and run the app in it to its end. Called where no container of this name exists."""
    tries.made += 1
    name, asked = _image(run, tries)
    spec = replace(run.spec, image=name)
    with run.gpus() as gpus, run.room(asked.copied):
        given_folders.give(spec, run.engine.data_folder)
        container = run.engine.create(run.pinned(spec.with_gpus(gpus)))
    run.created(container)
    memory = run.memory(container)
    run.engine.start(container, run.spec.handed)
    return _await(run, tries, container, run.spec.seconds, memory)


def _image(run: AppRun, tries: _Tries) -> tuple[str, FittingImage]:
    """The name on the engine of the app's image, fetched if the engine lacks it, and what the image asks of it."""
    known = run.known_image()
    if known is not None:
        with suppress(NoSuchImage):
            return known, run.engine.require_fit(known)
    fetched = run.fetch_image()
    tries.in_a_row = 0
    return fetched, run.engine.require_fit(fetched)


def _found(run: AppRun, tries: _Tries) -> ContainerExit:
    """Continue with the app's container that an earlier attempt left, whatever state it is in, to the app's end; make a
    new one if there is none, or if its exit says nothing about the app.
    """
    try:
        state = run.engine.find(run.spec)
    except NoSuchContainer:
        run.clear()
        return _fresh(run, tries)
    container = state.container
    run.found(container)
    memory = run.memory(container)
    log.info("Found the task's container again.", action="container_found", name=run.spec.name, status=state.status)
    if state.status == "created" and not run.spec.sandbox.domains and run.spec.handed is None:
        run.engine.start(container)
        return _await(run, tries, container, run.spec.seconds, memory)
    if state.running:
        ended = _await(run, tries, container, run.spec.seconds - _ran(run.engine, state), memory)
        if run.spec.handed is None or ended.exit_code != ENGINE_LOST:
            return ended
        # Perhaps it was no app yet, but the launcher of a worker that was killed while it sent the variables.
        state = run.engine.state(container)
    if never_ended(state) or was_stopped(run.engine, state, lost_engine=tries.lost_engine):
        # It never ran, and has addresses of hosts from when it was made, or waits for variables; or the engine or the
        # machine ended with the container, or another request stopped or removes it: its exit says nothing about the
        # app.
        run.engine.remove(container)
        run.clear()
        return _fresh(run, tries)
    # It ended while nobody watched.
    run.watch(container).raise_if_over()
    return end_of(run.engine, container, state, run.spec.seconds, memory)


def _ran(engine: Engine, state: ContainerState) -> float:
    """Seconds that a running container has run. Raises EngineUnavailable."""
    since = since_start(state.process, state.container)
    return state.ran(engine.now()) if since is None else since


def never_ended(state: ContainerState) -> bool:
    """Whether a container that does not run has no end of its own that says anything about the app. One that ended
    before the machine was started anew has, but not all that it wrote may have been on disk when the power was lost.
    """
    before = state.boot is not None and state.boot != verified.this_boot()
    return state.status == "created" or state.being_removed or state.exit_code == ENGINE_LOST or before


def was_stopped(engine: Engine, state: ContainerState, *, lost_engine: bool = False) -> bool:
    """Whether an ended app may have ended because somebody else asked it to, e.g. the engine, which stops all apps
    before it ends itself: then it may have left half a result, with any exit code. Raises EngineUnavailable.

    `lost_engine`: the engine gave no answer meanwhile. One that was only slow still knows of an end of the app's own,
    and that app is not started a second time. An app that was killed is not asked about: `verdict` knows that this says
    nothing, and it may have been our own kill.
    """
    if state.running or state.out_of_memory:
        return False
    if state.exit_code == KILLED:
        return lost_engine
    return engine.signalled(state.container, untold=lost_engine) is not False


def _await(run: AppRun, tries: _Tries, container: str, seconds: float, memory: MemoryWatch) -> ContainerExit:
    """Wait for the app's end or kill it at its time limit. Raises TaskFailure, TaskDeclined, EngineUnavailable."""
    tries.in_a_row = 0
    with memory, run.watch(container) as disk:
        in_time = run.engine.wait(container, seconds)
    disk.raise_if_over()
    state = run.engine.state(container)
    for pause in LATE_CAUSE_PAUSES:
        if state.running or state.exit_code != KILLED or state.out_of_memory:
            break
        run.wait(pause)
        state = run.engine.state(container)
    killed = not in_time and state.running
    if killed:
        if state.paused:
            raise ContainerRefused(why="the container was paused from outside")
        log.info(
            "The app reached its time limit; killing it.",
            action="app_timeout",
            container=container,
            seconds=run.spec.seconds,
        )
        run.engine.kill(container)
        state = run.engine.state(container)
    elif was_stopped(run.engine, state):
        run.engine.remove(container)
        raise NoSuchContainer(why=f"{container}: it was stopped from outside")
    return end_of(run.engine, container, state, run.spec.seconds, memory, killed=killed)


def end_of(
    engine: Engine,
    container: str,
    state: ContainerState,
    seconds: float,
    memory: MemoryWatch,
    *,
    killed: bool = False,
) -> ContainerExit:
    """How an app that had `seconds` has ended and what it printed; `killed`: by us. Raises EngineUnavailable,
    NoSuchContainer.
    """
    if state.running or state.started is None or state.finished is None:
        raise EngineTrouble(
            what=engine.host, why=f"the engine says that the container has ended, and that it is {state.status}"
        )
    # A worker that was killed after its own kill of the container finds only the exit code. Both times are the
    # engine's, and an ended container needs no clock.
    over_time = state.exit_code == KILLED and state.ran(state.finished) >= seconds
    stdout, stderr = engine.printed(container)
    return ContainerExit(
        state.exit_code,
        state.out_of_memory,
        timed_out=killed or over_time,
        stdout=stdout,
        stderr=stderr,
        own_limit=not state.out_of_memory or memory.is_own_limit(),
    )
