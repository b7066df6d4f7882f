"""What a container gets and what it does not: the spec of one replicate's container, decided purely.

iExec's contract with apps (environment, folders, arguments; iexec-worker 9.2) inside the machine's sandbox (`profile`):
limits on memory, CPU, processes, file size and logs, and nothing of the host but the two folders, a GPU where the deal
asks for one, and the launcher where it is handed variables. A spec has no field for privileged mode, host namespaces or
further folders, so no assignment can ask for them; `devices` and `sockets` are this machine's own, for SGX enclaves
(`workers.enclave.sgx`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from protocol.errors import EngineTrouble
from protocol.results.args import split_args
from protocol.results.computed import OUTPUT_FOLDER
from protocol.results.environment import INPUT_FOLDER, app_variables
from protocol.results.params import DealParams
from protocol.types import DealId, TaskId, Wallet
from protocol.wire import Assignment
from workers.data import verified
from workers.sandbox.handed import HandedVariables
from workers.sandbox.network.allow_list import PinnedHost, label_of
from workers.sandbox.profile import Sandbox

#: Processes and threads: more than any sane app starts, few enough that a fork bomb harms nobody.
PIDS: Final = 512
#: The same for a runtime with a kernel of its own, whose threads the machine's kernel counts: gVisor's has 34, and two
#: for each of the app's processes (measured). Short of them it does not refuse the app a process, it ends, with exit
#: code 2. The app's processes are bounded by its memory, of which gVisor takes half a MiB for each.
OWN_KERNEL_PIDS: Final = 4 * PIDS
#: Below the hard limit (20,000 seen) of engines that run without the right to raise it: they could start nothing.
OPEN_FILES: Final = 16_384
#: Bytes of one file an app may write; stops a runaway before the result cap is even looked at.
FILE_BYTES: Final = 16 * 2**30
#: Bytes of /dev/shm, Docker's own default. They count as the app's memory.
SHARED_MEMORY_BYTES: Final = 64 * 2**20
#: Docker keeps this many bytes of log per file, and two files, so that an endless printer cannot fill the disk.
LOG_FILE_BYTES: Final = 32 * 2**20
#: Above the worker's 0: if the machine runs out of memory, the app dies first.
OOM_SCORE: Final = 500
NANOSECONDS: Final = 10**9

#: Characters of the worker's name in a container's.
NAME_CHARACTERS: Final = 40
#: What Docker refuses in a container's name.
_UNFIT: Final = re.compile(r"[^a-zA-Z0-9_.-]+")

LABEL_POOL: Final = "sluice.workerpool"
LABEL_WALLET: Final = "sluice.wallet"
LABEL_TASK: Final = "sluice.task"
LABEL_DEAL: Final = "sluice.deal"
#: GPUs of a container, by their ids separated by commas.
LABEL_GPUS: Final = "sluice.gpus"
#: Name of the time since its machine was started when it was made (`verified`), so that what it has left is not
#: believed after a loss of power.
LABEL_BOOT: Final = "sluice.boot"
#: Execution limit in seconds, so that a restarted worker enforces the same one.
LABEL_LIMIT: Final = "sluice.limit"
#: Addresses and ports that the packet filter lets the container reach, where there is an allow list of domains.
LABEL_PINS: Final = "sluice.reaches"


@dataclass(frozen=True, slots=True)
class EngineResources:
    """What a Docker engine has, as it reports itself: it may run in a smaller virtual machine than the worker."""

    cpus: int
    memory_bytes: int
    #: Version of Linux's cgroups there: 1 or 2.
    cgroups: int = 1


def read_engine_resources(info: Mapping[str, object]) -> EngineResources:
    """What an engine has, from its `info`. Raises EngineTrouble if it does not say."""
    cpus, memory = info.get("NCPU"), info.get("MemTotal")
    if type(cpus) is not int or type(memory) is not int or cpus < 1 or memory < 1:
        raise EngineTrouble(what="Docker", why=f"it does not say what it has (NCPU {cpus}, MemTotal {memory})")
    # Engines that do not say are too old for version 2.
    return EngineResources(cpus, memory, 2 if str(info.get("CgroupVersion")) == "2" else 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one slot of this machine may use."""

    memory_bytes: int
    nano_cpus: int

    @classmethod
    def of_slot(cls, *, memory_per_slot: int, cpus: int, slots: int) -> Limits:
        """The engine's processors shared evenly between the machine's slots, but never less than half of one, and never
        more than there are.
        """
        return cls(memory_per_slot, min(max(NANOSECONDS // 2, cpus * NANOSECONDS // slots), cpus * NANOSECONDS))


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that Docker is told about one container, and in `handed` what it is not told."""

    name: str
    image: str
    #: Empty: the image's own default.
    command: Sequence[str]
    #: Variables that the engine keeps, and shows to whoever may use it: no secrets (`handed`).
    environment: dict[str, str] = field(repr=False)
    labels: dict[str, str]
    #: Host folders; inputs are bound read-only, unless `writes_inputs`.
    inputs: str
    outputs: str
    limits: Limits
    #: Seconds from the container's start.
    seconds: int
    sandbox: Sandbox
    #: What it reaches, if the sandbox has an allow list of domains: `pinned` adds them.
    pins: tuple[PinnedHost, ...] = ()
    #: Ids of the GPUs that it gets: `with_gpus` adds them.
    gpus: tuple[str, ...] = ()
    #: Host file that it has as /etc/resolv.conf; None: the engine's (`own_kernel_names`).
    resolv_conf: str | None = None
    #: Whether it is no app, but what makes an app's inputs.
    writes_inputs: bool = False
    #: Id of a container whose network it shares, whatever the sandbox says; None: it has its own.
    network_of: str | None = None
    #: In place of the image's own entry point; None: that.
    entrypoint: tuple[str, ...] | None = None
    #: Devices of the host, and sockets of its services, that it has under the same paths.
    devices: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    #: Names by which it, and who shares its network, finds itself.
    names: tuple[str, ...] = ()
    #: Variables that it gets past the engine, beside `environment`: `hand_over`.
    handed: HandedVariables | None = None

    def has_folders_of(self, mounts: Sequence[Mapping[str, str]]) -> bool:
        """Whether a container with these mounts, as Docker tells them, has this one's folders: those of another
        SLUICE_HOME hold another's result.
        """
        sources = {mount["Destination"]: mount["Source"] for mount in mounts}
        return sources.get(INPUT_FOLDER) == self.inputs and sources.get(OUTPUT_FOLDER) == self.outputs

    def pinned(self, pins: tuple[PinnedHost, ...]) -> ContainerSpec:
        """The same container with the addresses of the hosts that it may reach."""
        return replace(self, pins=pins, labels=self.labels | {LABEL_PINS: label_of(pins)})

    def with_gpus(self, gpus: tuple[str, ...]) -> ContainerSpec:
        """The same container with these GPUs, by their ids, and a label that names them."""
        return replace(self, gpus=gpus, labels=self.labels | {LABEL_GPUS: ",".join(gpus)}) if gpus else self

    def hand_over(self, launcher: str) -> ContainerSpec:
        """The same container, started by the launcher at that path, with none of its variables known to the engine."""
        return replace(self, environment={}, handed=HandedVariables(launcher, self.environment))


def environment(assignment: Assignment, params: DealParams) -> dict[str, str]:
    """The variables of a standard app, exactly those of iexec-worker 9.2"""
    return app_variables(
        TaskId(assignment.task_id),
        DealId(assignment.deal_id),
        assignment.index,
        bag=(assignment.bot_first, assignment.bot_size),
        dataset=assignment.dataset.address if assignment.dataset else None,
        input_files=params.input_files,
    )


def container_name(worker_name: str, wallet: Wallet, task_id: TaskId) -> str:
    """Worker name and task id as iExec has it, and the wallet's head: machines on one engine share task ids.

    A worker may be called anything; of its name only what Docker allows in a container's is kept.
    """
    readable = _UNFIT.sub("-", worker_name)[:NAME_CHARACTERS].strip("-_.") or "worker"
    return f"{readable}-{wallet[2:10]}-{task_id}"


def container_spec(
    assignment: Assignment,
    params: DealParams,
    *,
    worker_name: str,
    workerpool: str,
    inputs: str,
    outputs: str,
    limits: Limits,
    sandbox: Sandbox,
) -> ContainerSpec:
    """The container of one replicate."""
    command = list(split_args(params.args)) if params.args and params.args.strip() else []
    return ContainerSpec(
        name=container_name(worker_name, Wallet(assignment.wallet), TaskId(assignment.task_id)),
        image=assignment.image,
        command=tuple(command),
        environment=environment(assignment, params),
        labels={
            LABEL_POOL: workerpool,
            LABEL_WALLET: assignment.wallet,
            LABEL_TASK: assignment.task_id,
            LABEL_DEAL: assignment.deal_id,
            LABEL_LIMIT: str(assignment.category_seconds),
            LABEL_BOOT: verified.this_boot() or "",
        },
        inputs=inputs,
        outputs=outputs,
        limits=limits,
        seconds=assignment.category_seconds,
        sandbox=sandbox,
    )
