"""Two ports: `Enclave`, what is done around the app of one replicate (its inputs, its container's variables, its
result), with or without an enclave; and `Framework`, a kind of enclave that a machine can run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from protocol.results.params import DealParams
from protocol.types import ZERO_ADDRESS, Hash32, TaskId
from protocol.wire import Assignment
from workers.data import inputs, outputs
from workers.data.download import DownloadPolicy
from workers.data.layout import Layout, TaskFolders
from workers.data.outputs import PackedResult, ResultLimits
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.image import ImageRules
from workers.sandbox.spec import ContainerSpec, Limits
from workers.task.deadline import TaskDeadline

#: What decides which kind of enclave a machine runs.
SETTING: Final = "SLUICE_ENCLAVE"


@dataclass(frozen=True, slots=True)
class Work:
    """One replicate on this machine."""

    assignment: Assignment
    params: DealParams
    layout: Layout
    #: Keeps the time that the app still needs: none if an earlier attempt has run it.
    deadline: TaskDeadline

    @property
    def task_id(self) -> TaskId:
        """The replicate's task."""
        return TaskId(self.assignment.task_id)

    @property
    def has_callback(self) -> bool:
        """Whether a contract gets its result."""
        return self.assignment.callback != ZERO_ADDRESS

    @property
    def folders(self) -> TaskFolders:
        """Where the replicate's files are."""
        return self.layout.task(self.task_id)


@dataclass(frozen=True, slots=True)
class Host:
    """What a machine runs the programs around an app with."""

    engine: Engine
    images: ImageRules
    limits: Limits
    worker_name: str
    workerpool: str
    #: What the chain has of the enclave of the replicate's app. Raises RpcUnavailable.
    app_enclave: Callable[[], bytes]


class Enclave(Protocol):
    """What is done around the app of one replicate. The methods are called in this order, once each."""

    def pre_compute(self, policy: DownloadPolicy) -> None:
        """Put dataset and input files where the app sees them. Raises TaskFailure, TaskDeclined."""

    def app(self, spec: ContainerSpec) -> ContainerSpec:
        """The app's container, with the variables that it gets here."""

    def post_compute(self, limits: ResultLimits) -> PackedResult:
        """Put the result where it is uploaded from. Raises TaskFailure, TaskDeclined."""


class Framework(Protocol):
    """A kind of enclave that this machine runs."""

    @property
    def tag(self) -> Hash32:
        """The bits of a tag that it serves."""

    def require(self, engine: Engine, layout: Layout) -> None:
        """Raise BadSetting unless it can be run with this engine and these folders, EngineUnavailable."""

    def enter(self, work: Work, host: Host) -> Enclave:
        """The `Enclave` of this replicate, with a session that is asked for now. Raises TaskDeclined."""


@dataclass(frozen=True, slots=True)
class NoEnclave:
    """The `Enclave` of standard tasks, which have none."""

    work: Work

    def pre_compute(self, policy: DownloadPolicy) -> None:
        """Put dataset and input files where the app sees them. Raises TaskFailure, TaskDeclined."""
        work = self.work
        inputs.fetch(work.assignment, work.params, work.folders.inputs, work.layout, policy, work.deadline)

    def app(self, spec: ContainerSpec) -> ContainerSpec:
        """The app's container, with the variables that it gets here."""
        return spec

    def post_compute(self, limits: ResultLimits) -> PackedResult:
        """Put the result where it is uploaded from. Raises TaskFailure, TaskDeclined."""
        return outputs.pack(
            self.work.task_id,
            self.work.folders.outputs,
            self.work.folders.zip,
            callback=self.work.has_callback,
            result_limits=limits,
        )
