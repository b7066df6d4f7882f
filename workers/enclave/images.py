"""The images of pre- and post-compute: those that a session names, else our own (`enclaves/`)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from protocol.enclave.session import POST_COMPUTE, PRE_COMPUTE, Service
from protocol.errors import BadSetting, TaskDeclined, TaskFailure
from protocol.results.error_result import NOT_PREPARED
from workers.enclave.port import SETTING, Host, Work
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.image import AppImage

#: Our own by the session's name for the program. The tag changes when an older one could not work with this worker.
OWN: Final = {PRE_COMPUTE: "sluice/pre-compute:1", POST_COMPUTE: "sluice/post-compute:1"}
#: A session's fingerprint that may be an image's digest; without one the registry's tag counts.
_DIGEST: Final = re.compile(r"(?:0x|sha256:)?([0-9a-f]{64})")
_NO_CHECKSUM: Final = "0x" + "0" * 64


def provide(service: Service, work: Work, host: Host) -> str:
    """The name of this service's image on the engine, fetched if it is not there. Raises TaskDeclined,
    EngineUnavailable.
    """
    found = _DIGEST.fullmatch(service.fingerprint)
    wanted = work.assignment.model_copy(
        update={
            "image": service.image_name or OWN[service.name],
            "image_checksum": f"0x{found[1]}" if found else _NO_CHECKSUM,
        }
    )
    rules = replace(host.images, local=host.images.local | frozenset(OWN.values()))
    try:
        image = AppImage(host.engine, work.layout, rules, wanted, work.deadline)
        known = image.known()
        # Another program may have removed it from the engine, e.g. one that prunes by a timer.
        return known if known is not None and host.engine.has_image(known) else image.fetch()
    except TaskDeclined:
        raise
    except TaskFailure as error:
        # Not the app's image: another machine meets the same, and no app is at fault.
        raise TaskDeclined(task=work.task_id, cause=NOT_PREPARED, why=str(error.fields["why"])) from error


def require_present(engine: Engine, *names: str) -> None:
    """Raise BadSetting unless the engine has these images of ours; EngineUnavailable."""
    missing = [name for name in names if not engine.has_image(name)]
    if missing:
        raise BadSetting(
            name=SETTING,
            why=f"this machine's Docker engine has no image {' and no image '.join(missing)}",
            fix="Build them with `sluice sms images`.",
        )
