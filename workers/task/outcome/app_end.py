"""How the app of a task for an enclave ended, kept by this machine, so that its container need not be.

    app ends ──► how it ended is on disk ──► container removed ──► post-compute

What an app has left in its container's own layer, or printed, may hold the session's secrets, so it stays no longer
than it must. Other tasks' containers stay until the result is packed: they have nothing to hide.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

import structlog

from config.whole_files import write_whole
from protocol.errors import EngineUnavailable, NoSuchContainer
from workers.data import verified
from workers.data.layout import TaskFolders
from workers.sandbox import run_app
from workers.sandbox.engine.container import Engine
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.memory import MemoryWatch
from workers.sandbox.run_app import AppRun
from workers.task.deadline import backoff
from workers.task.replicate import Replicate

log = structlog.get_logger(__name__)

#: Times that the engine is asked to remove a container; then the machine's next sweep does it.
_TRIES = 5
_PRINTED = ("stdout", "stderr")
#: In what is written down: since which start of the machine.
_BOOT = "boot"


def keep(folders: TaskFolders, ended: ContainerExit) -> None:
    """Write down how the app ended and what it printed. Raises OSError."""
    row = asdict(ended) | {name: base64.b64encode(getattr(ended, name)).decode() for name in _PRINTED}
    row[_BOOT] = verified.this_boot()
    write_whole(folders.ended, json.dumps(row), mode=0o600)


def kept(folders: TaskFolders) -> ContainerExit | None:
    """How the app ended, if an earlier attempt wrote that down since the machine was started: what the app itself wrote
    before may have been lost with the power. Raises OSError.
    """
    try:
        row = json.loads(folders.ended.read_bytes())
    except FileNotFoundError:
        return None
    if row.pop(_BOOT, None) not in (None, verified.this_boot()):
        return None
    return ContainerExit(**(row | {name: base64.b64decode(row[name]) for name in _PRINTED}))


def settle(engine: Engine, folders: TaskFolders, replicate: Replicate, memory: Callable[[str], MemoryWatch]) -> float:
    """Seconds that the app of a replicate needs yet (`run_app.seconds_needed`). If it is sealed and ended while nobody
    watched, how it ended is kept first, and its container removed. `memory`: as in `AppRun`. Raises OSError.
    """
    container, seconds = replicate.container_id, replicate.assignment.category_seconds
    if not replicate.in_enclave:
        return run_app.seconds_needed(engine, container, seconds)
    if container is not None:
        # One that cannot be removed now is when the app is run.
        with suppress(EngineUnavailable, NoSuchContainer):
            state = engine.state(container)
            if not state.running:
                ended = not run_app.never_ended(state) and not run_app.was_stopped(engine, state)
                if kept(folders) is None and ended:
                    keep(folders, run_app.end_of(engine, container, state, seconds, memory(container)))
                engine.remove(container)
    return run_app.seconds_needed(engine, container, seconds) if kept(folders) is None else 0.0


def run(app: AppRun, folders: TaskFolders, *, sealed: bool, resumed: bool) -> ContainerExit:
    """Run the app as `run_app` does. `sealed`: in an enclave; then its container is gone when this returns or raises,
    unless the engine does not answer. Raises OSError, and as `run_app`.
    """
    if not sealed:
        return run_app.run_app(app, resumed=resumed)
    try:
        ended = kept(folders)
        if ended is None:
            ended = run_app.run_app(app, resumed=resumed)
            keep(folders, ended)
    except Exception:
        _remove(app, tries=1)
        raise
    _remove(app, tries=_TRIES)
    return ended


def _remove(app: AppRun, tries: int) -> None:
    """Remove the app's container; one that stays after so many tries is left to the machine's next sweep."""
    for failures in range(1, tries + 1):
        try:
            app.engine.remove(app.spec.name)
        except EngineUnavailable as error:
            if failures == tries:
                log.warning(
                    "Container not removed yet.", action="container_left", container=app.spec.name, why=str(error)
                )
                return
            app.wait(backoff(failures))
        else:
            return
