"""Tests at start, in half a second, whether this machine's Docker engine runs a container with a slot's limits.

A container with a slot's limits, the machine's name and folders, of an empty image whose program does not exist: an
engine that gets as far as missing the program has accepted everything else.
"""

from __future__ import annotations

import os
from contextlib import suppress

from protocol.errors import BadSetting, CannotStart, ContainerRefused, NoSuchContainer
from protocol.types import TaskId
from workers.context import Machine
from workers.sandbox.container import Engine
from workers.sandbox.spec import INPUT_FOLDER, LABEL_LIMIT, LABEL_POOL, ContainerSpec, container_name

#: An image without a file, made on the engine the first time.
IMAGE = ("sluice/empty", "1")
#: In place of a task's id: names the container and its folders.
_TASK = TaskId("rehearsal")
_MARKER = "marker"
#: Seconds an app could run: none does.
_SECONDS = 10


def rehearse(machine: Machine) -> str:
    """What a slot gets, in words. Raises BadSetting if the engine refuses such containers, EngineUnavailable."""
    limits = machine.limits
    folders = machine.layout.task(_TASK)
    spec = ContainerSpec(
        name=container_name(machine.settings.worker_name, machine.wallet, _TASK),
        image=":".join(IMAGE),
        command=("/sluice-rehearsal",),
        environment={},
        labels={LABEL_POOL: machine.pool.workerpool, LABEL_LIMIT: str(_SECONDS)},
        inputs=str(folders.inputs),
        outputs=str(folders.outputs),
        limits=limits,
        seconds=_SECONDS,
    )
    engine = Engine(machine.settings.docker_host)
    try:
        folders.make()
        (folders.inputs / _MARKER).write_text(str(os.getpid()))
        engine.make_empty_image(*IMAGE)
        # Another program that prunes containers may have removed it: the engine has made it, which is what was tested.
        with suppress(NoSuchContainer):
            _try_out(engine, spec)
    except ContainerRefused as error:
        raise BadSetting(
            name="SLUICE_DOCKER_HOST",
            why=str(error),
            fix="Mend the engine, or change SLUICE_MEMORY_PER_SLOT, SLUICE_SLOTS or SLUICE_HOME to what it takes.",
        ) from error
    finally:
        folders.remove()
        engine.close()
    return f"a slot gets {limits.nano_cpus / 10**9:g} CPUs and {limits.memory_bytes / 2**30:.2f} GiB"


def _try_out(engine: Engine, spec: ContainerSpec) -> None:
    container = engine.create(spec)
    try:
        if not engine.file_exists(container, f"{INPUT_FOLDER}/{_MARKER}"):
            raise ContainerRefused(why=f"the engine does not see this machine's folder {spec.inputs}")
        # Refused for its program is what should happen.
        with suppress(CannotStart):
            engine.start(container)
    finally:
        engine.remove(container)
