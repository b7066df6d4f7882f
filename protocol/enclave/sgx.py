"""SGX enclaves, of SCONE or GRAMINE, as iexec-worker 9.2 starts their containers: each attests itself to the
service that holds the session, and gets its environment from there. Pure.

    SCONE     SCONE_CAS_ADDR   where the session is        SCONE_LAS_ADDR  what attests on this machine
              SCONE_CONFIG_ID  <session>/<service>         SCONE_HEAP      bytes; the app's as it says on chain
              SCONE_LOG, SCONE_VERSION
    GRAMINE   sps  where the session is    session  its id

What an app's owner says of its enclave is on chain: JSON {"framework", "version", "fingerprint"}, with SCONE also
"entrypoint" and "heapSize" (iExec SDK 8.24).
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from protocol.enclave.session import APP, POST_COMPUTE, PRE_COMPUTE, FrameworkProperties, SessionPlace
from protocol.errors import BadMessage
from protocol.poco.tags import Framework

#: What SCONE's runtime prints: that it runs, and which version of it.
_LOG: Final = {"SCONE_LOG": "error", "SCONE_VERSION": "1"}
_Words = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class AppEnclave(BaseModel):
    """An app's enclave as its owner has registered it on chain."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)

    framework: Framework
    #: Of the framework: which images of pre- and post-compute go with the app.
    version: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z._-]{1,100}$")]
    fingerprint: _Words
    entrypoint: str = ""
    #: Bytes, of SCONE only.
    heap_size: Annotated[int, Field(ge=0)] = 0


def read_app_enclave(content: bytes, kind: Framework) -> AppEnclave:
    """The app's enclave, by what is on chain. Raises BadMessage for one that is none of this kind."""
    try:
        found = AppEnclave.model_validate_json(content)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"]) or "it is no JSON object"
        raise BadMessage(why=f"what the chain has of the app's enclave is not of its form: {field}") from None
    if found.framework is not kind:
        raise BadMessage(why=f"the app's enclave is of {found.framework}, and its task's of {kind}")
    if kind is Framework.SCONE and not (found.entrypoint.strip() and found.heap_size):
        raise BadMessage(why="an enclave of SCONE has an entry point and a heap, and the app's does not say which")
    return found


def heap_of(service: str, app: AppEnclave, properties: FrameworkProperties) -> int:
    """Bytes of the heap of one of a task's enclaves."""
    return {
        PRE_COMPUTE: properties.pre_compute_properties.heap_size_in_bytes,
        APP: app.heap_size,
        POST_COMPUTE: properties.post_compute_properties.heap_size_in_bytes,
    }[service]


def variables(kind: Framework, service: str, place: SessionPlace, *, heap: int, las: str) -> dict[str, str]:
    """The environment of a container by which its enclave finds its session. `heap`: bytes; `las`: address and port of
    what attests on this machine; both for SCONE alone.
    """
    if kind is Framework.GRAMINE:
        return {"sps": place.secret_provisioning_url, "session": place.session_id}
    return {
        "SCONE_CAS_ADDR": place.secret_provisioning_url,
        "SCONE_LAS_ADDR": las,
        "SCONE_CONFIG_ID": f"{place.session_id}/{service}",
        "SCONE_HEAP": str(heap),
        **_LOG,
    }
