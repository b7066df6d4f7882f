"""What pre- and post-compute tell the worker on whose machine they run (JSON of iexec-worker 9.2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from protocol.errors import BadMessage
from protocol.wire import HexSignature

#: Bytes of a report at most: a computed.json of 256 KiB, and what is added to it.
REPORT_BYTES = 2**20
#: Causes of one failure at most, and characters that are kept of the words of each.
_CAUSES, _MESSAGE = 100, 1000


class ExitCause(BaseModel):
    """Why a program failed: a name that iExec's worker knows, and words."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cause: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,99}$")]
    message: Annotated[str, AfterValidator(lambda words: words[:_MESSAGE])] = ""


class SignedResult(BaseModel):
    """Post-compute's report of a result: the final content of computed.json."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=lambda name: name.replace("_", "-"))

    task_id: Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{64}$")]
    result_digest: Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{64}$")]
    enclave_signature: HexSignature


_SEVERAL = TypeAdapter(Annotated[tuple[ExitCause, ...], Field(min_length=1, max_length=_CAUSES)])


def read_exit_causes(body: bytes) -> tuple[ExitCause, ...]:
    """One or more causes; older programs send one that is not in a list. Raises BadMessage."""
    try:
        if body.lstrip().startswith(b"["):
            return _SEVERAL.validate_json(body)
        return (ExitCause.model_validate_json(body),)
    except ValidationError:
        raise BadMessage(why="it is no list of causes") from None


def read_signed_result(body: bytes) -> SignedResult:
    """The report in a request's body. Raises BadMessage."""
    try:
        return SignedResult.model_validate_json(body)
    except ValidationError:
        raise BadMessage(why="it is no computed.json with digest and signature") from None
