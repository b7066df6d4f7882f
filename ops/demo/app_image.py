"""Builds the demo's app image from Debian's static busybox, so that no image registry is needed."""

from __future__ import annotations

import gc
import hashlib
import io
import tarfile
import warnings
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from ops.stack import tools

#: Name of the image; the tag changes whenever `app.sh` must differ from that of an older build.
IMAGE = "sluice/demo-app:2"
_SCRIPT = Path(__file__).with_name("app.sh")
_APPLETS = ("sh", "cat", "cut", "echo", "sha256sum", "sleep", "true")


def build(client: docker.DockerClient, *, image: str = IMAGE) -> str:
    """Make sure `image` exists on the engine and return its name. Raises MissingTool."""
    label = {"sluice.demo-app": hashlib.sha256(_SCRIPT.read_bytes()).hexdigest()}
    if not _has_image(client, image, label):
        build_image(client, _build_context(), tag=image, labels=label)
    return image


def build_image(
    client: docker.DockerClient, context: io.BytesIO, *, tag: str, labels: dict[str, str] | None = None
) -> None:
    """Have the engine build `context`, a tar file in memory, and close the connection that this took.

    docker-py leaves the connection of a build to the garbage collector, which complains of it at any later moment.
    """
    client.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, labels=labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _has_image(client: docker.DockerClient, image: str, label: dict[str, str]) -> bool:
    """Whether the engine has this image with these labels."""
    try:
        return client.images.get(image).labels.items() >= label.items()
    except ImageNotFound:
        return False


def _build_context() -> io.BytesIO:
    """A Docker build context as a tar file in memory: busybox, a link for each applet the script uses, the script."""
    links = " && ".join(f"/bin/busybox ln -s /bin/busybox /bin/{name}" for name in _APPLETS)
    dockerfile = (
        "FROM scratch\n"
        "COPY busybox /bin/busybox\n"
        f'RUN ["/bin/busybox", "sh", "-c", "{links}"]\n'
        "COPY app.sh /app.sh\n"
        'ENTRYPOINT ["/bin/sh", "/app.sh"]\n'
    )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        _add_file(tar, "Dockerfile", dockerfile.encode(), 0o644)
        _add_file(tar, "app.sh", _SCRIPT.read_bytes(), 0o755)
        _add_file(tar, "busybox", tools.busybox().read_bytes(), 0o755)
    packed.seek(0)
    return packed


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    """Add one file with this content and mode to the tar file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
