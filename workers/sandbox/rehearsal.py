"""Tests at start, in a second, whether this machine's Docker engine runs a container as apps' are, and what such a
container reaches.

A container with a slot's limits, the machine's sandbox, name and folders, of an image that holds one program, which
only waits. On a processor for which there is no such program, an engine that gets as far as missing it has accepted
everything else.
"""

from __future__ import annotations

import os
import socket
from contextlib import closing, suppress
from dataclasses import dataclass

from protocol.errors import BadSetting, CannotStart, ContainerRefused, NoSuchContainer
from protocol.types import TaskId
from workers.context import Machine
from workers.sandbox import egress, pause_program
from workers.sandbox.container import Engine
from workers.sandbox.egress import Target
from workers.sandbox.network import AppNetwork
from workers.sandbox.profile import NetworkAccess, check_runtime
from workers.sandbox.spec import INPUT_FOLDER, LABEL_LIMIT, LABEL_POOL, ContainerSpec, container_name

#: An image with the program, made on the engine the first time.
IMAGE = ("sluice/rehearsal", "1")
#: In place of a task's id: names the container and its folders.
TASK = TaskId("rehearsal")
_MARKER = "marker"
#: Seconds an app could run: none does.
_SECONDS = 10
#: Where clouds serve a machine's own credentials.
METADATA: Target = ("169.254.169.254", 80)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What was found out."""

    #: What a slot gets, in words.
    slot: str
    #: What apps reach, in words.
    network: str


def rehearse(machine: Machine, task: TaskId = TASK, *, outside: Target | None = None) -> Rehearsal:
    """Run a container. `outside`: an address on the internet that is tried from inside, too.

    Raises BadSetting if the engine refuses such containers, or if the container reaches what it must not;
    EngineUnavailable.
    """
    limits, sandbox = machine.limits, machine.sandbox
    folders = machine.layout.task(task)
    spec = ContainerSpec(
        name=container_name(machine.settings.worker_name, machine.wallet, task),
        image=":".join(IMAGE),
        command=(f"/{pause_program.PATH}",),
        environment={},
        labels={LABEL_POOL: machine.pool.workerpool, LABEL_LIMIT: str(_SECONDS)},
        inputs=str(folders.inputs),
        outputs=str(folders.outputs),
        limits=limits,
        seconds=_SECONDS,
        sandbox=sandbox,
    )
    engine = Engine(machine.settings.docker_host)
    network = {NetworkAccess.NONE: "apps have none", NetworkAccess.OPEN: OPEN}.get(sandbox.network, UNSEEN)
    try:
        check_runtime(sandbox, engine.info())
        apart = engine.confine_apps() if sandbox.network is NetworkAccess.PUBLIC else None
        folders.make()
        (folders.inputs / _MARKER).write_text(str(os.getpid()))
        engine.make_image(*IMAGE, pause_program.archive(engine.platform[1]))
        # Another program that prunes containers may have removed it: the engine has made it, which is what was tested.
        with suppress(NoSuchContainer):
            network = _try_out(engine, spec, apart, outside) or network
    except ContainerRefused as error:
        raise BadSetting(
            name="SLUICE_DOCKER_HOST",
            why=str(error),
            fix="Mend the engine, or change SLUICE_MEMORY_PER_SLOT, SLUICE_SLOTS or SLUICE_HOME to what it takes.",
        ) from error
    finally:
        folders.remove()
        engine.close()
    if apart is not None and not apart.limited:
        network = f"{network}; their connections are not limited, since this kernel lacks connlimit"
    return Rehearsal(
        f"a slot gets {limits.nano_cpus / 10**9:g} CPUs and {limits.memory_bytes / 2**30:.2f} GiB", network
    )


#: In words, what apps reach.
OPEN = "apps reach all that this machine reaches, and this machine itself (SLUICE_APP_NETWORK=open)"
FILTERED = "apps reach the internet only"
UNSEEN = f"{FILTERED}; not tried from inside a container, which this worker cannot look into"


def _try_out(engine: Engine, spec: ContainerSpec, apart: AppNetwork | None, outside: Target | None) -> str | None:
    """What a container on the network `apart` reaches, in words; None if it is on another, or cannot be looked into."""
    container = engine.create(spec)
    try:
        if not engine.file_exists(container, f"{INPUT_FOLDER}/{_MARKER}"):
            raise ContainerRefused(why=f"the engine does not see this machine's folder {spec.inputs}")
        try:
            engine.start(container)
        except CannotStart:
            # There is no program for this processor: refused for that is what should happen.
            return None
        return None if apart is None else _look(engine, container, apart, outside)
    finally:
        engine.remove(container)


def _look(engine: Engine, container: str, apart: AppNetwork, outside: Target | None) -> str | None:
    with closing(socket.create_server((apart.gateway, 0))) as listener:
        own: Target = (apart.gateway, listener.getsockname()[1])
        forbidden = {own: "this machine", METADATA: f"{METADATA[0]}, where clouds keep credentials"}
        targets = [*forbidden, *([outside] if outside else [])]
        found = egress.reached(*engine.process_of(container), targets)
    if found is None:
        return None
    answers = dict(zip(targets, found, strict=True))
    got_through = [words for target, words in forbidden.items() if answers[target]]
    if got_through:
        raise BadSetting(
            name="SLUICE_APP_NETWORK",
            why=f"an app would reach {' and '.join(got_through)}, although the packet filter is set",
            fix="Look for rules of iptables, or of nftables, that accept what comes from bridges before it.",
        )
    seen = f"{FILTERED}; from inside a container, this machine and {METADATA[0]} were refused"
    if outside is None:
        return seen
    return f"{seen}, and {outside[0]}:{outside[1]} {'answered' if answers[outside] else 'did not answer'}"
