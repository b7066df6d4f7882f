"""Enclaves without the hardware, on development chains: all is done as for TDX, and nothing is attested.

    secret service ──► session ──► pre-compute ──► app ──► post-compute
                       once         (here)      (sandbox)    (here)

This machine itself takes the session, so that its owner can read all that is in it; pre- and post-compute are the
worker's own code. What a session holds stays in this process's memory, and in the app's container while that exists:
after a crash another session is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from protocol.enclave.session import APP, POST_COMPUTE, PRE_COMPUTE, Session
from protocol.errors import TaskDeclined
from protocol.poco.tags import TDX_BITS, make_tag
from protocol.results.error_result import SESSION_UNKNOWN
from protocol.types import Hash32
from workers.data.download import DownloadPolicy
from workers.data.outputs import PackedResult, ResultLimits
from workers.enclave import ask, post_compute, pre_compute
from workers.enclave.port import Enclave, Work
from workers.enclave.sms_api import SmsApi
from workers.sandbox.spec import ContainerSpec


@dataclass(frozen=True, slots=True)
class Simulated:
    """A `Framework` that stands in for TDX: the kind that the SDK asks for."""

    service: SmsApi

    @property
    def tag(self) -> Hash32:
        """The bits of a tag that it serves."""
        return make_tag(*TDX_BITS)

    def enter(self, work: Work) -> Enclave:
        """What surrounds this replicate's app: asks for its session. Raises TaskDeclined."""
        return SimulatedEnclave(work, ask.take_session(self.service, work.assignment, work.deadline))


@dataclass(frozen=True)
class SimulatedEnclave:
    """An `Enclave` with a session that was taken."""

    work: Work
    session: Session

    def pre_compute(self, policy: DownloadPolicy) -> None:
        """Put dataset and input files where the app sees them. Raises TaskFailure, TaskDeclined."""
        pre_compute.fetch(self.work, policy, self._variables.get(PRE_COMPUTE, {}))

    def app(self, spec: ContainerSpec) -> ContainerSpec:
        """The app's container, with the variables that it gets here."""
        return replace(spec, environment=dict(self._of(APP)))

    def post_compute(self, limits: ResultLimits) -> PackedResult:
        """Put the result where it is uploaded from. Raises TaskFailure, TaskDeclined."""
        return post_compute.seal(self.work, limits, self._of(POST_COMPUTE))

    @cached_property
    def _variables(self) -> dict[str, dict[str, str]]:
        """Variables of each container that has any."""
        return {service.name: service.environment for service in self.session.services}

    def _of(self, service: str) -> Mapping[str, str]:
        """The environment of one container of the session. Raises TaskDeclined if it has none."""
        if service not in self._variables:
            why = f"the session has nothing for {service}"
            raise TaskDeclined(task=self.work.task_id, cause=SESSION_UNKNOWN, why=why)
        return self._variables[service]
