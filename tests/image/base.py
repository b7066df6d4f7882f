"""The base of docker/Dockerfile without an image registry: Debian's packages, imported into the engine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from docker import DockerClient
from docker.errors import ImageNotFound

from ops.stack import tools
from tests.documents import ROOT

#: What `python:3.11-slim-bookworm` has of it, and iptables, so that the Dockerfile installs nothing from Debian.
PACKAGES = ("python3", "python3-venv", "ca-certificates", "iptables")
SUITE = "bookworm"
#: Where Debian has the certificates it trusts.
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
#: What an image does not need: half of its bytes.
_NOT_NEEDED = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")
#: Where this machine's programs are told to find certificates and packages, for a build on the same network.
_SAID_TO_THE_BUILD = ("PIP_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE")
#: The image that the tests build and run.
TAG = "sluice-image-test"


def docker(host: str, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Docker's command line on this engine; what it printed. Raises MissingTool."""
    if shutil.which("docker") is None:
        tools.debian("docker.io", program="docker", instead="put Docker's command line on PATH")
    # The older builder is in every engine; the newer needs a plugin that Debian's docker.io lacks.
    env = os.environ | {"DOCKER_HOST": host, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", *words], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"docker {words[0]}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def build(host: str, engine: DockerClient) -> str:
    """Build docker/Dockerfile on the base, and return its tag. What was built before is used again."""
    said = {name: os.environ[name] for name in _SAID_TO_THE_BUILD if os.environ.get(name)}
    # Files of this machine, which the base has a copy of at Debian's own place.
    said |= {name: f"/{CERTIFICATES}" for name in ("PIP_CERT", "SSL_CERT_FILE") if name in said}
    arguments = [word for name, value in said.items() for word in ("--build-arg", f"{name}={value}")]
    docker(host, "build", "--network", "host", "--file", "docker/Dockerfile", "--tag", TAG,
           "--build-arg", f"BASE={base_image(engine)}", *arguments, ".")  # fmt: skip
    return TAG


def base_image(engine: DockerClient) -> str:
    """The tag of the base in this engine; made at the first call. Raises MissingTool."""
    trusted = Path("/") / CERTIFICATES
    trust = trusted.read_bytes() if trusted.exists() else b""
    mark = hashlib.sha256(repr((PACKAGES, SUITE, _NOT_NEEDED)).encode() + trust).hexdigest()[:12]
    tag = f"sluice-base:{mark}"
    try:
        engine.images.get(tag)
    except ImageNotFound:
        folder = tools.cache_folder() / f"{SUITE}-{mark}"
        with tools.locked(tools.cache_folder() / f"{SUITE}.lock"):
            if not folder.exists():
                _bootstrap(folder, trust)
        _import(engine, folder, tag)
    return tag


def _bootstrap(folder: Path, trust: bytes) -> None:
    """Debian with PACKAGES in a folder (2 to 3 minutes). It trusts the certificates that this machine trusts."""
    if shutil.which("debootstrap") is None:
        tools.debian("debootstrap", program="debootstrap", instead="run `make image-test` on a Debian system")
    half = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(half, ignore_errors=True)
    command: Sequence[str | Path] = (
        *("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, half),
    )
    tools.run(command, tool="A base image", fix="Let debootstrap reach Debian's mirror; it needs root.")
    for path in _NOT_NEEDED:
        shutil.rmtree(half / path, ignore_errors=True)
        (half / path).mkdir()
    if trust:
        (half / CERTIFICATES).write_bytes(trust)
    half.rename(folder)


def _import(engine: DockerClient, folder: Path, tag: str) -> None:
    archive = folder.with_suffix(".tar")
    try:
        tools.run(["tar", "-C", folder, "-cf", archive, "."], tool="tar", fix="Make room on the disk.")
        repository, _, version = tag.partition(":")
        engine.api.import_image_from_file(str(archive), repository=repository, tag=version)
    finally:
        archive.unlink(missing_ok=True)
