"""Runs pre- or post-compute in a container of its own, which is gone when it returns, whatever happens.

    our images       program ──starts──► door opened in its network, which the program waits for
    iExec's images   container that holds a network ──► door opened in it ──► program in the same network
                     (for SGX enclaves a network by which they reach the service that attests)

No container stays: what its program has read is of one session, and a later attempt has its own. The variables of a
session that the worker has read go past the engine (`Shape`); those for SGX enclaves hold no secret.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import structlog

from protocol.enclave.session import PRE_COMPUTE, Service
from protocol.errors import BadSetting, EngineUnavailable, NoSuchContainer, NoSuchImage, TaskDeclined, TaskFailure
from protocol.results.error_result import MACHINE_FAILED, EnclaveFailure, Failure
from protocol.types import Wallet
from workers.enclave import door_server, images
from workers.enclave.door import VARIABLES, Door
from workers.enclave.port import SETTING, Host, Work
from workers.sandbox import disk
from workers.sandbox.disk import DiskWatch, Place
from workers.sandbox.engine import given_folders
from workers.sandbox.engine.container import Engine
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.engine_disk import room_for_copies
from workers.sandbox.network import egress, pause_program
from workers.sandbox.profile import CAPABILITIES, NetworkAccess, Profile, Sandbox
from workers.sandbox.scratch import SeenScratch
from workers.sandbox.spec import LABEL_POOL, LABEL_TASK, LABEL_WALLET, ContainerSpec, container_name
from workers.task.deadline import backoff

_Found = TypeVar("_Found")
#: A function that changes the spec of a confined container into that of a program's.
Shape = Callable[[ContainerSpec], ContainerSpec]
log = structlog.get_logger(__name__)

#: Without a network but its door. The images are those of the pool's secret service, and it is the app that is not
#: trusted: the engine's own runtime serves.
SANDBOX: Final = Sandbox(Profile.COMPAT, NetworkAccess.NONE, CAPABILITIES, read_only=False, runtime=None)
#: Seconds between two checks whether the task is still wanted.
_CHECK_SECONDS: Final = 5.0
#: Times that something is tried because the engine, an image or a container went away.
_TRIES: Final = 5
_GONE: Final = (EngineUnavailable, NoSuchContainer, NoSuchImage)
#: Times that a program may have on disk what goes through its door (in clear, zipped, encrypted), and bytes besides,
#: e.g. of a Java machine.
_COPIES: Final = 5
_SCRATCH_BYTES: Final = 2**28
#: End of the name of a container that has the network of one with another's image.
_HOLDER: Final = "-network"
#: Exit codes of iExec's programs: the worker was told why, could not be told, and there was no task.
_REPORTED, _UNREPORTED, _NO_TASK = 1, 2, 3
#: Causes that say nothing of the task here: this machine has fetched and checked all inputs itself, and sends them;
#: and it has found the names, number and size of what the app has left fit for a zip.
_CHECKED_HERE: Final = frozenset(
    {
        EnclaveFailure.DATASET_FILE,
        EnclaveFailure.DATASET_CHECKSUM,
        EnclaveFailure.INPUT_FILES,
        Failure.FILE_NAME,
        Failure.OUTPUT_ZIP,
    }
)


def confined(spec: ContainerSpec) -> ContainerSpec:
    """The shape of a container that reaches nothing but its door: the spec as it is."""
    return spec


def require_reach(engine: Engine) -> None:
    """Raise BadSetting for a process that cannot enter its containers' network."""
    scheme, _, path = engine.host.partition("://")
    why, fix = None, "Run it as root, with an engine of this machine, or unset it."
    if os.geteuid() != 0 or scheme != "unix":
        why = "what runs before and after an app needs a worker that is root on the machine of its Docker engine"
    elif (closed := egress.why_closed(Path(path))) is not None:
        why = f"what runs before and after an app has its network entered by the worker, which cannot do that: {closed}"
        fix = "Run it outside of containers; or its container with `--pid host --privileged`; or unset it."
    if why is not None:
        raise BadSetting(name=SETTING, why=why, fix=fix)


def run(service: Service, work: Work, host: Host, door: Door, shape: Shape = confined) -> None:
    """Run the program in a container of this shape until it ends well. Raises TaskFailure, TaskDeclined."""

    def attempt() -> ContainerExit:
        """Run the program once, without the reports of an earlier attempt."""
        door.forget()
        return _run(service, work, host, door, shape)

    ended = _retried(work, attempt)
    if ended.exit_code != 0:
        raise _failure(service, work, door, ended)


def clear(service: Service, work: Work, host: Host) -> None:
    """Remove what an attempt that was killed has left: containers that have read another session.

    Raises TaskDeclined.
    """
    _retried(work, lambda: _clear(service, work, host))


def _retried(work: Work, act: Callable[[], _Found]) -> _Found:
    """Call `act`, again if the engine, an image or a container has gone; returns its result. Raises TaskDeclined."""
    for failures in range(1, _TRIES):
        try:
            return act()
        except _GONE as trouble:
            work.deadline.wait_before_retry(backoff(failures), str(trouble))
    try:
        return act()
    except _GONE as trouble:
        raise TaskDeclined(task=work.task_id, cause=MACHINE_FAILED, why=str(trouble)) from trouble


def _clear(service: Service, work: Work, host: Host) -> None:
    """Remove the program's container and the one that holds its network. Raises EngineUnavailable."""
    for name in (_name(service, work, host), _name(service, work, host) + _HOLDER):
        host.engine.remove(name)


def _run(service: Service, work: Work, host: Host, door: Door, shape: Shape) -> ContainerExit:
    """Run the program once, with its door open; returns how it ended."""
    engine, image = host.engine, images.provide(service, work, host)
    room = room_for_copies(engine, work.layout, work.task_id, work.deadline.wait, engine.require_fit(image).copied)
    _clear(service, work, host)
    spec = shape(_spec(service, work, host, image))
    if image in images.OWN.values():
        # It asks again until the door is open.
        with _running(engine, spec, room) as container, door_server.serving(engine, container, door):
            return _ended(spec, work, host, door, container)
    engine.make_image(*pause_program.IMAGE, pause_program.archive(engine.platform[1]))
    # iExec's would fail: for them the network and the door are there first.
    with (
        _running(engine, _holder(spec)) as holder,
        door_server.serving(engine, holder, door),
        _running(engine, replace(spec, network_of=holder), room) as container,
    ):
        return _ended(spec, work, host, door, container)


@contextmanager
def _running(engine: Engine, spec: ContainerSpec, room: AbstractContextManager[None] | None = None) -> Iterator[str]:
    """The id of a container that runs, and is gone afterwards. `room`: held while it is made."""
    with room or nullcontext():
        given_folders.give(spec, engine.data_folder)
        container = engine.create(spec)
    try:
        engine.start(container, spec.handed)
        yield container
    finally:
        engine.remove(container)


def _holder(spec: ContainerSpec) -> ContainerSpec:
    """The spec of a container that only holds the network of the program's container."""
    return replace(
        spec,
        name=spec.name + _HOLDER,
        image=":".join(pause_program.IMAGE),
        command=(f"/{pause_program.PATH}",),
        environment={},
        writes_inputs=False,
        entrypoint=None,
        devices=(),
        sockets=(),
        handed=None,
    )


def _ended(spec: ContainerSpec, work: Work, host: Host, door: Door, container: str) -> ContainerExit:
    """Wait for the program's end, or kill it at its time limit; returns how it ended. Raises TaskDeclined."""
    with _watch(spec, work, host, door, container) as watch:
        in_time = _await(work, host, container)
        if not in_time:
            host.engine.kill(container)
    try:
        watch.raise_if_over()
    except TaskDeclined:
        raise
    except TaskFailure as over:
        raise TaskDeclined(task=work.task_id, cause=MACHINE_FAILED, why=str(over.fields["why"])) from over
    state = host.engine.state(container)
    return ContainerExit(state.exit_code, state.out_of_memory, timed_out=not in_time)


def _watch(spec: ContainerSpec, work: Work, host: Host, door: Door, container: str) -> DiskWatch:
    """A watch that kills a program which fills this machine's disk: its image is trusted no more than an app's.

    The task is declined then, since that says nothing about the app.
    """
    engine, seen = host.engine, SeenScratch(host.engine, container)
    folders = Path(spec.inputs), Path(spec.outputs)
    written = Place(
        "all that it wrote",
        lambda: (*folders, *seen.paths()),
        _COPIES * door.size + _SCRATCH_BYTES,
        # No limit that every machine has.
        sys.maxsize,
        disk.SCRATCH_ENTRIES,
        Failure.OUTPUT_ZIP,
    )
    disks = (work.layout.root, *([engine.data_folder] if engine.data_folder else []))
    return DiskWatch(
        work.task_id,
        [written],
        lambda: disks,
        lambda: engine.kill(container),
        floor=work.layout.least_free,
        every=disk.CHECK_SECONDS,
    )


def _await(work: Work, host: Host, container: str) -> bool:
    """Whether the container ends in the time that the deal's category gives each container of a task."""
    left = float(work.assignment.category_seconds)
    while left > 0:
        if host.engine.wait(container, min(left, _CHECK_SECONDS)):
            return True
        left -= _CHECK_SECONDS
        work.deadline.check()
    return False


def _spec(service: Service, work: Work, host: Host, image: str) -> ContainerSpec:
    """The spec of the program's container, before `Shape` changes it."""
    assignment, folders = work.assignment, work.folders
    return ContainerSpec(
        name=_name(service, work, host),
        image=image,
        command=(),
        environment=service.environment | VARIABLES,
        labels={LABEL_POOL: host.workerpool, LABEL_WALLET: assignment.wallet, LABEL_TASK: assignment.task_id},
        inputs=str(folders.inputs),
        outputs=str(folders.outputs),
        limits=host.limits,
        seconds=assignment.category_seconds,
        sandbox=SANDBOX,
        writes_inputs=service.name == PRE_COMPUTE,
    )


def _name(service: Service, work: Work, host: Host) -> str:
    """The name of the program's container."""
    return f"{container_name(host.worker_name, Wallet(work.assignment.wallet), work.task_id)}-{service.name}"


def _failure(service: Service, work: Work, door: Door, ended: ContainerExit) -> TaskFailure:
    """The error for a program that did not end well, with a cause by the names of iexec-worker 9.2."""
    stage = service.name.upper().replace("-", "_")
    words, cause, why = "", f"{stage}_FAILED_UNKNOWN_ISSUE", f"{service.name} ended with exit code {ended.exit_code}"
    if ended.timed_out:
        why = f"{service.name} took more than {work.assignment.category_seconds} s"
    elif ended.out_of_memory:
        cause, why = MACHINE_FAILED, f"{service.name} ran out of memory"
    elif ended.exit_code == _REPORTED and service.name in door.exit_causes:
        told = door.exit_causes[service.name]
        # Its words, which may be of what it has decrypted, are for the log alone: anybody may read a cause.
        words, cause, why = told.message, told.cause, f"{service.name} has reported it"
        if cause in _CHECKED_HERE:
            cause, why = MACHINE_FAILED, f"{service.name} failed at what this machine has checked: {cause}"
    elif ended.exit_code == _UNREPORTED:
        cause = f"{stage}_EXIT_REPORTING_FAILED"
    elif ended.exit_code == _NO_TASK:
        cause = f"{stage}_TASK_ID_MISSING"
    log.warning(
        "Failed around the app.", action="surrounding_failed", task=work.task_id, cause=cause, why=why, words=words
    )
    if cause in frozenset(Failure):
        failure = Failure(cause)
        return TaskFailure(task=work.task_id, status=failure.status, cause=failure, why=why)
    return TaskDeclined(task=work.task_id, cause=cause, why=why)
