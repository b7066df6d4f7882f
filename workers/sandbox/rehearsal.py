"""Tests at start, in a second, whether this machine's Docker engine runs a container as apps' are, and what such a
container reaches.

A container with a slot's limits, the machine's sandbox, name and folders, of an image that holds one program, which
only waits. On a processor for which there is no such program, an engine that gets as far as missing it has accepted
everything else.

Container and folders are named after the process that made them, which holds the lock of that name: what a killed
process left is known by its free lock, and removed at the next start (and by `upkeep` and `prune`, as any task's).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from protocol.errors import BadSetting, CannotStart, ContainerRefused, EngineTrouble, NoSuchContainer, RefusedHere
from protocol.results.environment import INPUT_FOLDER
from protocol.types import TaskId, Wallet
from workers.context import Machine
from workers.data.layout import Layout
from workers.sandbox.engine.container import Engine
from workers.sandbox.network import app_names, egress, listed_apps, name_servers, pause_program
from workers.sandbox.network.allow_list import SETTING
from workers.sandbox.network.bridge import AppNetwork
from workers.sandbox.network.egress import Target
from workers.sandbox.profile import NetworkAccess, check_runtime
from workers.sandbox.spec import (
    LABEL_LIMIT,
    LABEL_POOL,
    LABEL_TASK,
    LABEL_WALLET,
    ContainerSpec,
    container_name,
)

#: In place of a task's id, with a process id behind it: names the container and its folders.
TASK = "rehearsal"
_MARKER = "marker"
#: Seconds an app could run: none does.
_SECONDS = 10
#: Seconds for which an isolated container is watched: a runtime that this kernel does not suit ends at once.
ISOLATED_SECONDS = 1.0
#: Times that a container is made which another program removes at once, e.g. one that prunes by a timer.
_TRIES = 2
#: Where clouds serve a machine's own credentials.
METADATA: Target = ("169.254.169.254", 80)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What was found out."""

    #: What a slot gets, in words.
    slot: str
    #: What apps reach, in words.
    network: str


#: In an engine's words when it cannot give a container a GPU: it knows no driver, or the driver no such GPU.
_OF_GPUS = ("device driver", "nvidia")


def rehearse(machine: Machine, *, outside: Target | None = None) -> Rehearsal:
    """Run a container. `outside`: an address on the internet that is tried from inside, too.

    Raises BadSetting if the engine refuses such containers, or if the container reaches what it must not, or neither a
    name server nor `outside`; EngineUnavailable, also if another program removes the container each time.
    """
    task = TaskId(f"{TASK}-{os.getpid()}")
    # `worker doctor` may be the first command that this wallet sees.
    machine.layout.make()
    with machine.layout.lock(task, wait=True):
        try:
            return _rehearse(machine, task, outside)
        finally:
            machine.layout.delete_lock(task)


def _rehearse(machine: Machine, task: TaskId, outside: Target | None) -> Rehearsal:
    """Run a container as an app's would be run, and check what it reaches."""
    limits, sandbox = machine.limits, machine.sandbox
    folders = machine.layout.task(task)
    spec = ContainerSpec(
        name=container_name(machine.settings.worker_name, machine.wallet, task),
        image=":".join(pause_program.IMAGE),
        command=(f"/{pause_program.PATH}",),
        environment={},
        labels={
            LABEL_POOL: machine.pool.workerpool,
            LABEL_WALLET: machine.wallet,
            LABEL_TASK: task,
            LABEL_LIMIT: str(_SECONDS),
        },
        inputs=str(folders.inputs),
        outputs=str(folders.outputs),
        limits=limits,
        seconds=_SECONDS,
        sandbox=sandbox,
        # All at once: an engine that cannot give them to containers refuses now.
        gpus=machine.gpus,
    )
    engine = Engine(machine.settings.docker_host)
    network = {NetworkAccess.NONE: "apps have none", NetworkAccess.OPEN: OPEN}.get(sandbox.network, UNSEEN)
    try:
        check_runtime(sandbox, engine.info())
        remove_strays(engine, machine.layout, machine.wallet, task)
        spec = _with_names(machine.layout, spec)
        apart = engine.confine_apps() if sandbox.network is NetworkAccess.PUBLIC else None
        if sandbox.network is NetworkAccess.LISTED:
            network = f"{listed_apps.only(spec)}; {NOT_TRIED}"
            apart = listed_apps.confine(engine, machine.layout, machine.wallet)
        folders.make()
        (folders.inputs / _MARKER).write_text(str(os.getpid()))
        engine.make_image(*pause_program.IMAGE, pause_program.archive(engine.platform[1]))
        network = _tried_out(engine, machine, spec, apart, outside) or network
    except ContainerRefused as error:
        raise BadSetting(
            name="SLUICE_DOCKER_HOST",
            why=str(error),
            fix="Repair the engine, or change SLUICE_MEMORY_PER_SLOT, SLUICE_SLOTS or SLUICE_HOME to what it takes.",
        ) from error
    except EngineTrouble as error:
        if not machine.gpus or not any(word in str(error) for word in _OF_GPUS):
            raise
        raise BadSetting(
            name="SLUICE_GPUS",
            why=str(error),
            fix="Install NVIDIA's driver and container toolkit and restart the engine, name GPUs it has, or none.",
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
NOT_TRIED = "not tried from inside a container, which this worker cannot look into"
UNSEEN = f"{FILTERED}; {NOT_TRIED}"


def _with_names(layout: Layout, spec: ContainerSpec) -> ContainerSpec:
    """The spec with the hosts of the allow list resolved. Raises BadSetting."""
    try:
        return app_names.with_names(layout, spec)
    except RefusedHere as error:
        raise BadSetting(
            name=SETTING,
            why=f"every task would be declined. {error}",
            fix="Name hosts that this machine can resolve to addresses of the internet, or start again when it can.",
        ) from error


def remove_strays(engine: Engine, layout: Layout, wallet: Wallet, own: TaskId) -> None:
    """Remove containers and folders of rehearsals whose process was killed, but none of the one named `own`.

    Raises EngineUnavailable.
    """
    strays: dict[TaskId, list[str]] = {TaskId(folder.name): [] for folder in (layout.root / "tasks").glob(f"{TASK}-*")}
    for task, container in engine.containers_of(wallet):
        if task.startswith(f"{TASK}-"):
            strays.setdefault(task, []).append(container)
    for task, containers in strays.items():
        if task == own:
            # Of a killed process that had this number.
            _remove(engine, layout, task, containers)
            continue
        with layout.lock(task, wait=False) as idle:
            if idle:
                _remove(engine, layout, task, containers)
                layout.delete_lock(task)


def _remove(engine: Engine, layout: Layout, task: TaskId, containers: Sequence[str]) -> None:
    """Remove the containers and the folder of a rehearsal."""
    for container in containers:
        engine.remove(container)
    layout.task(task).remove()


def _tried_out(
    engine: Engine, machine: Machine, spec: ContainerSpec, apart: AppNetwork | None, outside: Target | None
) -> str | None:
    """As `_try_out`, once more if another program, or another start, has removed the container meanwhile."""
    for _ in range(_TRIES):
        with suppress(NoSuchContainer):
            return _try_out(engine, machine, spec, apart, outside)
    raise EngineTrouble(what=engine.host, why=f"the container {spec.name} is removed as soon as it is made")


def _try_out(
    engine: Engine, machine: Machine, spec: ContainerSpec, apart: AppNetwork | None, outside: Target | None
) -> str | None:
    """What a container on the network `apart` reaches, in words; None if it is on another, or cannot be looked into.

    One whose runtime has a network stack of its own cannot be looked into: then another, of the engine's own runtime,
    is on the same network in its place.
    """
    if spec.sandbox.runtime is not None:
        _run_isolated(engine, spec)
        spec = replace(spec, sandbox=replace(spec.sandbox, runtime=None))
    container = engine.create(spec)
    try:
        if not engine.file_exists(container, f"{INPUT_FOLDER}/{_MARKER}"):
            raise ContainerRefused(why=f"the engine does not see this machine's folder {spec.inputs}")
        if spec.pins:
            listed_apps.confine(engine, machine.layout, machine.wallet)
        try:
            engine.start(container)
        except CannotStart as error:
            _require_no_program(engine, error)
            return None
        if apart is None:
            return None
        if not spec.pins:
            _require_names(engine, container, machine)
        return _look(engine, machine, container, spec, apart, outside)
    finally:
        engine.remove(container)


def _require_no_program(engine: Engine, error: CannotStart) -> None:
    """Raise ContainerRefused for an engine that does not execute a program of ours, which needs nothing of its image:
    it would execute no app either, and each would be voted to have failed. Where there is none for its processor, that
    refusal is what should happen.
    """
    if pause_program.program(engine.platform[1]) is not None:
        why = f"a program that needs nothing but the kernel is not executed in a container: {error.fields['why']}"
        raise ContainerRefused(why=why) from error


def _run_isolated(engine: Engine, spec: ContainerSpec) -> None:
    """Start a container that only waits, in the runtime of the spec's sandbox. Raises ContainerRefused if that does not
    run it.
    """
    container = engine.create(spec)
    try:
        engine.start(container)
        if engine.wait(container, ISOLATED_SECONDS):
            code = engine.state(container).exit_code
            why = f"under the runtime {spec.sandbox.runtime}, a program that only waits ended with exit code {code}"
            raise ContainerRefused(why=why)
    except CannotStart as error:
        _require_no_program(engine, error)
    finally:
        engine.remove(container)


def _require_names(engine: Engine, container: str, machine: Machine) -> None:
    """Raise BadSetting if the container cannot ask a name server for the pool's API, and this machine can."""
    if name_servers.learn(name_servers.of_container(engine.resolv_conf(container))):
        engine.confine_apps()
    name = name_servers.asked_name(machine.settings.api_url)
    if name is None:
        return
    isolated = machine.sandbox.runtime is not None
    servers = name_servers.of_containers() if isolated else [name_servers.RESOLVER]
    if egress.inside(*engine.process_of(container), lambda: name_servers.answers(name, servers)) is False:
        raise name_servers.unanswered(name, name_servers.allowed())


def _look(
    engine: Engine, machine: Machine, container: str, spec: ContainerSpec, apart: AppNetwork, outside: Target | None
) -> str | None:
    """What the container reaches, in words; None if this process cannot look into it. Raises BadSetting if too much."""
    with closing(socket.create_server((apart.gateway, 0))) as listener:
        own: Target = (apart.gateway, listener.getsockname()[1])
        forbidden = {own: "this machine", METADATA: f"{METADATA[0]}, where clouds keep credentials"}
        if spec.pins:
            asked = name_servers.asked_name(machine.settings.api_url)
            return listed_apps.look(engine, container, spec, forbidden, outside, asked)
        targets = [*forbidden, *([outside] if outside else [])]
        found = egress.reached(*engine.process_of(container), targets)
    if found is None:
        return None
    answers = dict(zip(targets, found, strict=True))
    got_through = [words for target, words in forbidden.items() if answers[target]]
    if got_through:
        raise listed_apps.reached(got_through)
    seen = f"{FILTERED}; from inside a container, this machine and {METADATA[0]} were refused"
    if outside is None:
        return seen
    where = f"{outside[0]}:{outside[1]}"
    if not answers[outside]:
        raise BadSetting(
            name="SLUICE_APP_NETWORK",
            why=f"an app gets no answer from the internet: {where}, the pool's address, was tried from a container",
            fix="Look for rules of iptables or nftables, or routes, that keep Docker's containers from the internet; or"
            " set SLUICE_APP_NETWORK=none.",
        )
    return f"{seen}, and {where} answered"
