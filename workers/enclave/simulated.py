"""Simulated enclaves for development chains: all is done as for TDX, without the hardware, and nothing is attested.

The worker itself takes the session from the secret service, so that this machine's owner can read all that is in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.poco.tags import TDX_BITS, make_tag
from protocol.types import Hash32
from workers.data.layout import Layout
from workers.enclave import ask, images, launcher, surrounding
from workers.enclave.port import Enclave, Host, Work
from workers.enclave.session_enclave import SessionEnclave
from workers.enclave.sms_api import SmsApi
from workers.sandbox.engine.container import Engine


@dataclass(frozen=True, slots=True)
class Simulated:
    """A `Framework` that stands in for TDX: the kind that the SDK asks for."""

    service: SmsApi

    @property
    def tag(self) -> Hash32:
        """The bits of a tag that it serves."""
        return make_tag(*TDX_BITS)

    def require(self, engine: Engine, layout: Layout) -> None:
        """Raise BadSetting unless it can be run with this engine, EngineUnavailable."""
        surrounding.require_reach(engine)
        images.require_present(engine, *images.OWN.values())
        launcher.require(engine, layout)

    def enter(self, work: Work, host: Host) -> Enclave:
        """The `Enclave` of this replicate, with a session that is asked for now. Raises TaskDeclined."""
        return SessionEnclave(work, host, ask.take_session(self.service, work.assignment, work.deadline))
