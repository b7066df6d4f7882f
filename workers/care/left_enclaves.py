"""Removes containers of tasks for enclaves that a killed machine left, first thing at its next start: what a program
has written in its container may hold secrets, and those of an earlier release have them in their environment.

    app that runs          goes on: it is watched again as soon as its task is
    app that has ended     how it ended is kept, its container removed
    all others             removed: what runs before and after an app begins anew with another session
"""

from __future__ import annotations

from contextlib import closing

import structlog

from protocol.errors import EngineUnavailable, NoSuchContainer
from protocol.types import TaskId, Wallet
from workers.data.layout import Layout
from workers.enclave import tdx
from workers.sandbox.engine.container import Engine
from workers.sandbox.memory import MemoryWatch
from workers.sandbox.spec import read_engine_resources
from workers.task.journal import Journal
from workers.task.outcome import app_end
from workers.task.replicate import COMPUTING, Replicate

log = structlog.get_logger(__name__)


def clear(layout: Layout, wallet: Wallet, docker_host: str | None) -> None:
    """Remove the containers of tasks for enclaves that a killed machine left, except apps that run. Called before the
    machine starts. One that the engine cannot remove is left to the first sweep.
    """
    tdx.forget_killed(tdx.MEMORY)
    if not layout.journal.exists():
        return
    try:
        with closing(Journal(layout.journal)) as journal:
            sealed = {item.task_id: item for item in journal.all_replicates() if item.in_enclave}
        if not sealed:
            return
        with closing(Engine(docker_host)) as engine:
            for task_id, container in engine.containers_of(wallet):
                if task_id in sealed:
                    _clear(engine, layout, task_id, container, sealed[task_id])
    except (EngineUnavailable, OSError) as error:
        log.warning("Containers of enclaves may be left.", action="enclaves_left", why=str(error))


def _clear(engine: Engine, layout: Layout, task_id: TaskId, container: str, replicate: Replicate) -> None:
    """Remove one container, unless it is of an app that still runs. Raises EngineUnavailable, OSError."""
    with layout.lock(task_id, wait=False) as idle:
        if not idle:
            # The machine runs after all.
            return
        if replicate.stage in COMPUTING and container == replicate.container_id:
            try:
                if engine.state(container).running:
                    return
            except NoSuchContainer:
                return
            cgroups = read_engine_resources(engine.info()).cgroups
            app_end.settle(
                engine, layout.task(task_id), replicate, lambda ended: MemoryWatch(ended, cgroups, engine.inspect)
            )
        engine.remove(container)
        log.info("A container of an enclave was left, and is removed.", action="enclave_removed", task=task_id)
