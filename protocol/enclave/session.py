"""How a worker asks the secret service for a session, and what a session holds (JSON of iExec SMS 9.3).

    worker ── SessionRequest, signed ──► POST /tee/sessions ──► SessionAnswer: id, and where the enclave gets it
    enclave ── id ──► there ──► Session: image and environment of pre-compute, app and post-compute

A session's environment holds secrets: no repr shows it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.keccak import keccak
from protocol.types import Hash32, Signature, TaskId, Wallet
from protocol.wire import HexSignature

#: Version of the sessions that iExec's agent for TDX reads.
SESSION_VERSION = "0.1.0"
PRE_COMPUTE, APP, POST_COMPUTE = "pre-compute", "app", "post-compute"


def _lower(text: str) -> str:
    """Lower case, for addresses in JSON."""
    return text.lower()


#: Java writes addresses with capitals.
AnyAddress = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$"), AfterValidator(_lower)]
AnyId = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{64}$"), AfterValidator(_lower)]


class SessionError(StrEnum):
    """Why there is no session, by the names that iExec's worker knows."""

    INVALID_AUTHORIZATION = "INVALID_AUTHORIZATION"
    NOT_A_TEE_TASK = "EXECUTION_NOT_AUTHORIZED_NO_MATCH_ONCHAIN_TYPE"
    TASK_UNKNOWN = "EXECUTION_NOT_AUTHORIZED_GET_CHAIN_TASK_FAILED"
    TASK_NOT_ACTIVE = "EXECUTION_NOT_AUTHORIZED_TASK_NOT_ACTIVE"
    DEAL_UNKNOWN = "EXECUTION_NOT_AUTHORIZED_GET_CHAIN_DEAL_FAILED"
    INVALID_SIGNATURE = "EXECUTION_NOT_AUTHORIZED_INVALID_SIGNATURE"
    NO_CHALLENGE = "GET_SIGNATURE_TOKENS_FAILED_EMPTY_TEE_CHALLENGE"
    NO_DATASET_KEY = "PRE_COMPUTE_GET_DATASET_SECRET_FAILED"
    NO_RESULT_KEY = "POST_COMPUTE_GET_ENCRYPTION_TOKENS_FAILED_EMPTY_BENEFICIARY_KEY"
    NO_STORAGE_TOKEN = "POST_COMPUTE_GET_STORAGE_TOKENS_FAILED"  # noqa: S105 - a name
    NOT_DELIVERED = "SECURE_SESSION_STORAGE_CALL_FAILED"
    FAILED = "SECURE_SESSION_GENERATION_FAILED"


class _Wire(BaseModel):
    """Names as Java writes them; what is not known here is ignored, as there."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class SignatureValue(_Wire):
    """A signature as Java wraps it."""

    value: HexSignature


class SessionRequest(_Wire):
    """The workerpool's authorization for a worker and a task; the worker signs its hash in the request's header."""

    chain_task_id: AnyId
    worker_wallet: AnyAddress
    enclave_challenge: AnyAddress
    signature: SignatureValue

    @property
    def subject(self) -> tuple[Wallet, TaskId, Wallet]:
        """Wallet, task and challenge, as `protocol.poco.authorization` takes them."""
        return Wallet(self.worker_wallet), TaskId(self.chain_task_id), Wallet(self.enclave_challenge)

    @property
    def authorization(self) -> Signature:
        """The workerpool owner's signature."""
        return Signature(self.signature.value)


class SessionPlace(_Wire):
    """A session that was made: its id, and where its enclave gets it."""

    session_id: str
    secret_provisioning_url: str


class SessionAnswer(_Wire):
    """Either a session or why there is none."""

    data: SessionPlace | None = None
    error: SessionError | None = None


class Service(BaseModel):
    """One container of a task: what attests it, and its environment."""

    model_config = ConfigDict(frozen=True)

    name: str
    image_name: str
    fingerprint: str
    environment: dict[str, str] = Field(repr=False)


class Session(BaseModel):
    """What a task's enclaves get, in the order in which they run."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str = SESSION_VERSION
    services: tuple[Service, ...]


def fetching_hash(session_id: str) -> Hash32:
    """The hash that a worker signs, with EIP-191, to fetch a simulated session: keccak of the id."""
    return Hash32(to_hex(keccak(session_id.encode())))


class ComputeProperties(_Wire):
    """An image of pre- or post-compute, and what attests it."""

    image: str
    fingerprint: str
    entrypoint: str = ""
    heap_size_in_bytes: int = 0


class FrameworkProperties(_Wire):
    """What serves one version of a framework: the images around the app."""

    tee_framework: str
    tee_framework_version: str
    pre_compute_properties: ComputeProperties
    post_compute_properties: ComputeProperties
    #: Of SCONE only.
    las_image: str | None = None
