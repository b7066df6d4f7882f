"""The `Enclave` whose session this machine has read: TDX, or its simulation.

    session ──► pre-compute ──► app ──► post-compute
                container,    sandbox    container,
                no network               no network

What a session holds stays in this process's memory, and in that of each container's program, which gets it past the
engine (`launcher`): after a crash another session is asked for. Pre- and post-compute reach this process and nothing
else (`door`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from protocol.enclave.session import APP, POST_COMPUTE, PRE_COMPUTE, Service, Session
from protocol.errors import BadInput, BadMessage, TaskDeclined, TaskFailure
from protocol.ethereum.signing import Key
from protocol.results.environment import input_file_name
from protocol.results.error_result import NO_ENCLAVE_KEY, SESSION_UNKNOWN, EnclaveFailure, Failure
from workers.data import inputs, verified
from workers.data.download import DownloadPolicy
from workers.data.layout import OPEN_TO_CONTAINER
from workers.data.outputs import PackedResult, ResultLimits
from workers.enclave import door, launcher, named_inputs, surrounding
from workers.enclave.brought import most_zip_bytes, packed
from workers.enclave.door import Door
from workers.enclave.port import Host, Work
from workers.sandbox import disk
from workers.sandbox.spec import ContainerSpec

_CAUSES = {
    Failure.DATASET_FILE: EnclaveFailure.DATASET_FILE,
    Failure.DATASET_CHECKSUM: EnclaveFailure.DATASET_CHECKSUM,
    Failure.INPUT_FILES: EnclaveFailure.INPUT_FILES,
}


@dataclass(frozen=True)
class SessionEnclave:
    """An `Enclave` with a session that was taken."""

    work: Work
    host: Host
    session: Session

    def pre_compute(self, policy: DownloadPolicy) -> None:
        """Put dataset and input files where the app sees them. Raises TaskFailure, TaskDeclined."""
        work = self.work
        if PRE_COMPUTE not in self._services and work.assignment.dataset is None and not work.params.input_files:
            return
        service = self._of(PRE_COMPUTE)
        datasets = named_inputs.datasets_of(work.task_id, service.environment)
        input_names = [input_file_name(url) for url in work.params.input_files]
        names = [each.address for each in datasets.values()] + input_names
        # As the session has them, for the app too.
        wanted = [service.environment[f"{prefix}_FILENAME"] for prefix in datasets] + input_names
        target, sealed = work.folders.inputs, work.folders.sealed
        # Each is there as a whole or not at all, but for a loss of power since; the app of an earlier attempt, which
        # that would have ended, may be reading them.
        if verified.is_noted(work.folders.opened) and all((target / name).exists() for name in wanted):
            surrounding.clear(service, work, self.host)
            return
        sealed.mkdir(exist_ok=True)
        with _declined(work):
            without = work.assignment.model_copy(update={"dataset": None})
            inputs.fetch(without, work.params, sealed, work.layout, policy, work.deadline)
            inputs.fetch_datasets(without, [*datasets.values()], sealed, work.layout, policy, work.deadline)
        files = {name: sealed / name for name in names}
        self._require_space(sum(path.stat().st_size for path in files.values()))
        # The container's root is not this machine's where the engine maps users.
        target.chmod(OPEN_TO_CONTAINER)
        base = door.URL + door.FILES
        variables = named_inputs.fetched_at(base, service.environment, datasets, work.params.input_files)
        surrounding.run(_with(service, variables), work, self.host, Door(work, files), self._handed)
        for url in work.params.input_files:
            # What iExec's programs call it by.
            other = target / input_file_name(base + input_file_name(url))
            if other.exists():
                other.replace(target / input_file_name(url))
        if not all((target / name).exists() for name in wanted):
            why = f"the image {service.image_name} has not left all inputs"
            raise TaskDeclined(task=work.task_id, cause="PRE_COMPUTE_FAILED_UNKNOWN_ISSUE", why=why)
        verified.note(work.folders.opened)

    def app(self, spec: ContainerSpec) -> ContainerSpec:
        """The app's container, with the variables that it gets here."""
        return self._handed(replace(spec, environment=dict(self._of(APP).environment)))

    def post_compute(self, limits: ResultLimits) -> PackedResult:
        """Put the result where it is uploaded from. Raises TaskFailure, TaskDeclined."""
        work, service = self.work, self._of(POST_COMPUTE)
        self._require_challenge_key(service.environment)
        opened = Door(work, most_bytes=most_zip_bytes(work, limits))
        variables = service.environment | {
            "RESULT_STORAGE_PROVIDER": "ipfs",
            "RESULT_STORAGE_PROXY": door.URL,
            "RESULT_STORAGE_TOKEN": opened.token,
        }
        surrounding.run(_with(service, variables), work, self.host, opened, self._handed)
        return packed(opened, limits)

    def _handed(self, spec: ContainerSpec) -> ContainerSpec:
        """The container, with its variables past the engine. Raises TaskDeclined for those that no program can have;
        NoSuchImage, EngineUnavailable.
        """
        found = spec.hand_over(launcher.provide(self.host.engine, self.work.layout))
        try:
            if found.handed is not None:
                found.handed.content()
        except BadMessage as error:
            raise TaskDeclined(task=self.work.task_id, cause=SESSION_UNKNOWN, why=str(error)) from None
        return found

    def _require_challenge_key(self, variables: Mapping[str, str]) -> None:
        """Raise TaskDeclined unless the session has the challenge key: the contract reverts for any other."""
        try:
            key = Key.from_hex(variables.get("SIGN_TEE_CHALLENGE_PRIVATE_KEY", ""))
        except BadInput:
            key = None
        challenge = self.work.assignment.enclave_challenge
        if key is None or key.wallet != challenge:
            why = f"the session has no key of {challenge}, the task's challenge"
            raise TaskDeclined(task=self.work.task_id, cause=NO_ENCLAVE_KEY, why=why)

    def _require_space(self, size: int) -> None:
        """Raise TaskDeclined if the disk has no space for `size` bytes."""
        disk.require_free_space(self.work.task_id, self.work.folders.root, self.work.layout.least_free + size)

    @cached_property
    def _services(self) -> dict[str, Service]:
        """The session's parts by the name of the container that each is for."""
        return {service.name: service for service in self.session.services}

    def _of(self, service: str) -> Service:
        """The session's part for a container. Raises TaskDeclined if there is none."""
        if service not in self._services:
            why = f"the session has nothing for {service}"
            raise TaskDeclined(task=self.work.task_id, cause=SESSION_UNKNOWN, why=why)
        return self._services[service]


def _with(service: Service, variables: dict[str, str]) -> Service:
    """The service with these environment variables in place of its own."""
    return service.model_copy(update={"environment": variables})


@contextmanager
def _declined(work: Work) -> Iterator[None]:
    """Within the block, raise TaskFailure of a fetch as TaskDeclined, with pre-compute's name for the cause."""
    try:
        yield
    except TaskDeclined:
        raise
    except TaskFailure as error:
        cause = _CAUSES[Failure(error.cause)]
        raise TaskDeclined(task=work.task_id, cause=cause, why=str(error.fields["why"])) from error
