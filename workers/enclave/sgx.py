"""SGX enclaves, of SCONE and GRAMINE, as far as their images can be driven without the hardware (iexec-worker 9.2).

    secret service ── images, entry points, heaps of the app's version ──► containers with this machine's SGX devices
    secret service ── session: id and place ──► each container's variables ──► the enclave proves itself, there

This machine never sees what a session holds. So pre-compute fetches by itself, on the network of apps, and post-compute
stores where its session says: at http://worker:13100 its result comes through the door to this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from protocol.enclave.session import (
    APP,
    POST_COMPUTE,
    PRE_COMPUTE,
    ComputeProperties,
    FrameworkProperties,
    Service,
    SessionPlace,
)
from protocol.enclave.sgx import AppEnclave, heap_of, read_app_enclave, variables
from protocol.errors import BadMessage, NotFound, NotPossible, TaskDeclined
from protocol.poco.tags import SGX_BITS, Framework, make_tag
from protocol.results.args import split_args
from protocol.results.environment import input_file_name
from protocol.results.error_result import APP_HEAP, NO_PROPERTIES, EnclaveFailure
from protocol.types import Hash32
from protocol.wire import Assignment
from workers.data import verified
from workers.data.download import DownloadPolicy
from workers.data.layout import OPEN_TO_CONTAINER, Layout
from workers.data.outputs import PackedResult, ResultLimits
from workers.enclave import ask, surrounding
from workers.enclave.brought import most_zip_bytes, packed
from workers.enclave.door import Door
from workers.enclave.port import Enclave, Host, Work
from workers.enclave.sms_api import TOKEN, SmsApi
from workers.sandbox.engine.container import Engine
from workers.sandbox.profile import NetworkAccess
from workers.sandbox.spec import ContainerSpec

#: Devices of an SGX machine, by the kernel's driver, Intel's and its older one: the first that are all there.
DRIVERS: Final = (("dev/sgx_enclave", "dev/sgx_provision"), ("dev/sgx/enclave", "dev/sgx/provision"), ("dev/isgx",))
#: Socket of Intel's quoting service, for GRAMINE.
_AESMD: Final = "var/run/aesmd/aesm.socket"
#: Host name by which an enclave reaches its worker.
_WORKER: Final = "worker"


@dataclass(frozen=True, slots=True)
class SgxHost:
    """This machine as one with SGX. `root`: of the file system."""

    kind: Framework
    #: Address and port of the local attestation service, as containers reach it (SCONE's LAS).
    las: str | None = None
    root: Path = Path("/")

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that a container gets; none if this machine has none."""
        present = ([self.root / path for path in driver] for driver in DRIVERS)
        return tuple(map(str, next((paths for paths in present if all(path.exists() for path in paths)), [])))

    @property
    def sockets(self) -> tuple[str, ...]:
        """The sockets of this machine's services that a container gets, under the same path."""
        return (str(self.root / _AESMD),) if self.kind is Framework.GRAMINE else ()

    def missing(self, network: NetworkAccess) -> list[str]:
        """What this machine lacks to run enclaves of its kind, in words. `network`: what apps reach."""
        found = [] if self.devices else ["no SGX devices (/dev/sgx_enclave and /dev/sgx_provision, or /dev/isgx)"]
        found += [f"no service that quotes (/{_AESMD} is absent)" for path in self.sockets if not Path(path).exists()]
        if self.kind is Framework.SCONE and self.las is None:
            found.append("no local attestation service (SLUICE_ENCLAVE_LAS is not set)")
        if self.kind is Framework.SCONE and network is not NetworkAccess.OPEN:
            found.append("apps do not reach the local attestation service (SLUICE_APP_NETWORK is not open)")
        elif network not in (NetworkAccess.OPEN, NetworkAccess.PUBLIC):
            found.append("apps do not reach the service that attests (SLUICE_APP_NETWORK is neither public nor open)")
        return found


@dataclass(frozen=True, slots=True)
class Sgx:
    """A `Framework` of SGX enclaves."""

    service: SmsApi
    host: SgxHost
    network: NetworkAccess
    #: Most bytes of an app's heap.
    most_heap: int

    @property
    def tag(self) -> Hash32:
        """The bits of a tag that it serves."""
        return make_tag(*SGX_BITS[self.host.kind])

    def require(self, engine: Engine, layout: Layout) -> None:  # noqa: ARG002 - the port's
        """Raise BadSetting unless it can be run with this engine, EngineUnavailable."""
        surrounding.require_reach(engine)

    def enter(self, work: Work, host: Host) -> Enclave:
        """The `Enclave` of this replicate, with a session that is asked for now. Raises TaskDeclined."""
        opening = _Opening(self.service, self.host.kind, lambda: self._app(work, host))
        try:
            opened = ask.take_session(opening, work.assignment, work.deadline)
        except (NotFound, NotPossible) as error:
            raise _declined(work, NO_PROPERTIES, str(error)) from error
        return _SgxEnclave(work, host, self, *opened)

    def _app(self, work: Work, host: Host) -> AppEnclave:
        """The app's enclave, from the app's `mrenclave` on chain. Raises TaskDeclined, RpcUnavailable."""
        content = host.app_enclave()
        if not content.strip():
            raise _declined(work, EnclaveFailure.NO_APP_ENCLAVE, "the chain has nothing of the app's enclave")
        try:
            app = read_app_enclave(content, self.host.kind)
        except BadMessage as error:
            raise _declined(work, EnclaveFailure.APP_ENCLAVE, str(error)) from error
        if app.heap_size > self.most_heap:
            why = f"the app's enclave has a heap of {app.heap_size} bytes, and this machine gives {self.most_heap}"
            raise _declined(work, APP_HEAP, why)
        return app


@dataclass(frozen=True, slots=True)
class _Opening:
    """`Sessions` whose content only the enclaves fetch: the machine gets the session's id and the images to run."""

    service: SmsApi
    kind: Framework
    app: Callable[[], AppEnclave]

    def open_session(self, assignment: Assignment) -> SessionPlace:
        """A new session, in place of an earlier one. Raises NoSession, Unavailable."""
        return self.service.open_session(assignment)

    def take_session(self, place: SessionPlace) -> tuple[AppEnclave, SessionPlace, FrameworkProperties]:
        """The app's enclave, where its enclaves fetch the session, and the images around it. Raises Unavailable."""
        about = self.app()
        return about, place, self.service.properties(self.kind, about.version)

    def store_token(self) -> None:
        """Store what the service wants every worker to have. Raises Unavailable."""
        self.service.store_token()


@dataclass(frozen=True)
class _SgxEnclave:
    """An `Enclave` whose programs fetch their sessions themselves."""

    work: Work
    host: Host
    sgx: Sgx
    about: AppEnclave
    place: SessionPlace
    properties: FrameworkProperties

    def pre_compute(self, policy: DownloadPolicy) -> None:
        """Put dataset and input files where the app sees them. Raises TaskFailure, TaskDeclined."""
        work, target = self.work, self.work.folders.inputs
        dataset, bulk = work.assignment.dataset, work.params.bulk_cid.strip()
        names = [dataset.address] if dataset else []
        names += [input_file_name(url) for url in work.params.input_files]
        if not names and not bulk:
            return
        service = self._service(PRE_COMPUTE, self.properties.pre_compute_properties)
        # See `SessionEnclave`.
        if not bulk and verified.is_noted(work.folders.opened) and all((target / name).exists() for name in names):
            surrounding.clear(service, work, self.host)
            return
        # The container's root is not this machine's where the engine maps users.
        target.chmod(OPEN_TO_CONTAINER)
        door = Door(work, most_bytes=policy.max_bytes)
        surrounding.run(service, work, self.host, door, self._shape(self.properties.pre_compute_properties))
        if not all((target / name).exists() for name in names):
            why = f"the image {service.image_name} has not left all inputs"
            raise _declined(work, "PRE_COMPUTE_FAILED_UNKNOWN_ISSUE", why)
        verified.note(work.folders.opened)

    def app(self, spec: ContainerSpec) -> ContainerSpec:
        """The app's container, with the variables and devices that it gets here."""
        host = self.sgx.host
        return replace(spec, environment=self._variables(APP), devices=host.devices, sockets=host.sockets)

    def post_compute(self, limits: ResultLimits) -> PackedResult:
        """Put the result where it is uploaded from. Raises TaskFailure, TaskDeclined."""
        work, properties = self.work, self.properties.post_compute_properties
        size = most_zip_bytes(work, limits)
        # Its token is the one that this machine has stored at the secret service.
        door = Door(work, most_bytes=size, token=TOKEN.decode())
        surrounding.run(self._service(POST_COMPUTE, properties), work, self.host, door, self._shape(properties))
        return packed(door, limits)

    def _service(self, name: str, properties: ComputeProperties) -> Service:
        """Image and variables of pre- or post-compute."""
        # Its fingerprint is an enclave's, and no image's.
        return Service(name=name, image_name=properties.image, fingerprint="", environment=self._variables(name))

    def _variables(self, service: str) -> dict[str, str]:
        """The environment by which a container's enclave fetches its part of the session."""
        heap = heap_of(service, self.about, self.properties)
        return variables(self.sgx.host.kind, service, self.place, heap=heap, las=self.sgx.host.las or "")

    def _shape(self, properties: ComputeProperties) -> Callable[[ContainerSpec], ContainerSpec]:
        """A function that adds to a container's spec what an SGX program needs: entry point, devices, network."""
        host, entrypoint = self.sgx.host, split_args(properties.entrypoint)

        def shaped(spec: ContainerSpec) -> ContainerSpec:
            """The spec with what an SGX program needs."""
            return replace(
                spec,
                entrypoint=entrypoint or None,
                devices=host.devices,
                sockets=host.sockets,
                names=(_WORKER,),
                sandbox=replace(spec.sandbox, network=self.sgx.network),
            )

        return shaped


def _declined(work: Work, cause: str, why: str) -> TaskDeclined:
    """The error by which this machine declines the task."""
    return TaskDeclined(task=work.task_id, cause=cause, why=why)
