"""Our images of pre- and post-compute, and of the launcher: one static program each, built from `enclaves/`, the same
bytes wherever and whenever that is done with the same Go.

    Go program ─► tar of one file ─► configuration ─► archive ─► `docker load`
                  sha256: diff_id     sha256: the image's id
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from config.whole_files import write_whole
from ops.stack import tools
from ops.stack.go_modules import GoProgram
from protocol.errors import MissingTool
from workers.data.registry import Blob
from workers.enclave import launcher
from workers.enclave.images import OWN
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.image_store import archive

log = structlog.get_logger(__name__)

#: All images by the name of their program.
IMAGES: Final = {**OWN, launcher.PROGRAM: launcher.IMAGE}
#: Processors by Linux's name, as Go and Docker call them.
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
#: Tar header fields without time, user or path of the machine that builds.
_EPOCH: Final = "1970-01-01T00:00:00Z"
#: Without tables for debuggers, and without an id that depends on the build's folder.
_FLAGS: Final = ("-buildvcs=false", "-ldflags", "-s -w -buildid=")


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image as it is loaded. `layer`: a tar file."""

    name: str
    config: bytes
    layer: Path
    #: sha256 of the layer, with its kind before it.
    diff_id: str

    @property
    def image_id(self) -> str:
        """Docker's id of the image: sha256 of its configuration, in hex."""
        return hashlib.sha256(self.config).hexdigest()

    def archive(self) -> bytes:
        """The image in the form that `docker save` writes."""
        blob = Blob(self.diff_id, self.layer.stat().st_size)
        return b"".join(archive(self.name, self.config, [blob], {blob.digest: self.layer}))


def program(service: str, module: Path | None = None) -> GoProgram:
    """The program of a session's service, e.g. "pre-compute", or the launcher."""
    return GoProgram(
        service,
        module or tools.root() / "enclaves",
        f"./cmd/{service}",
        takes=f"{service} (half a minute)",
        fix="Let Go reach its module proxy, once.",
        static=True,
        flags=_FLAGS,
    )


def build(service: str, module: Path | None = None) -> BuiltImage:
    """The image of `program(service)`, which is built at the first call. `module`: the sources. Raises MissingTool."""
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise MissingTool(tool=service, why=f"it is not built for {platform.machine()}", fix="Use amd64 or arm64.")
    built = program(service, module).build()
    layer = built.with_name(f"{service}.tar")
    content = _tar(service, built.read_bytes())
    write_whole(layer, content)
    diff_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return BuiltImage(IMAGES[service], _config(service, architecture, diff_id), layer, diff_id)


def load(engine: Engine) -> dict[str, BuiltImage]:
    """All images, by program; loaded unless the engine has them. Raises MissingTool, EngineUnavailable."""
    found = {name: build(name) for name in IMAGES}
    for image in found.values():
        if engine.image_id(image.name) != image.image_id:
            engine.load(iter([image.archive()]), meanwhile=lambda: None)
            log.info("Loaded an image.", action="enclave_image", image=image.name, id=image.image_id)
    return found


def properties(images: Mapping[str, BuiltImage]) -> dict[str, object]:
    """The content of SLUICE_SMS_PROPERTIES_FILE for these images."""
    row = {
        f"{service.replace('-c', 'C')}Properties": {
            "image": image.name,
            "fingerprint": image.image_id,
            "entrypoint": f"/{service}",
            "heapSizeInBytes": 0,
        }
        for service, image in images.items()
        if service in OWN
    }
    return {"v1": row}


def _tar(service: str, content: bytes) -> bytes:
    """The image's only layer: a tar file of the program, the same bytes on every build."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        # Its time, user and group are 0.
        entry = tarfile.TarInfo(service)
        entry.size, entry.mode = len(content), 0o755
        tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def _config(service: str, architecture: str, diff_id: str) -> bytes:
    """The image's configuration file, as JSON."""
    config = {
        "architecture": architecture,
        "config": {"Entrypoint": [f"/{service}"]},
        "created": _EPOCH,
        "history": [{"created": _EPOCH, "created_by": "sluice sms images"}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    return json.dumps(config, sort_keys=True).encode()
