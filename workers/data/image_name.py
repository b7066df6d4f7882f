"""Names of app images, as deals carry them: `docker.io/iexechub/app:1.0`. Pure.

As with Java workers a name needs a tag or a digest; a bare name and an image's id name nothing (iexec-worker 9.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: Characters of a name at most: Docker takes 255 of a repository, 128 of a tag, and a digest.
_NAME_CHARACTERS: Final = 512
#: Docker's grammar of image names (distribution/reference): a registry with a port, a path, a tag or a digest.
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:(?P<host>{_HOST}(?::[0-9]+)?)/)?(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
#: What a name without a registry means, and where that registry's API is.
DOCKER_HUB: Final = "docker.io"
_HUB_API: Final = "registry-1.docker.io"
_HUB_NAMES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


@dataclass(frozen=True, slots=True)
class ImageName:
    """An image at a registry, its name written out in full."""

    #: Host, with a port if it has one; `docker.io` for Docker Hub.
    registry: str
    repository: str
    tag: str | None
    #: `sha256:…` of a manifest; counts before the tag.
    digest: str | None

    @property
    def api_host(self) -> str:
        """Where the registry's API is."""
        return _HUB_API if self.registry == DOCKER_HUB else self.registry

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest if the name has one, else the tag."""
        return self.digest or self.tag or ""


def read_image_name(text: str) -> ImageName | None:
    """The image's full name; None if no image can have this name, or it has neither tag nor digest."""
    found = _NAME.fullmatch(text) if len(text) <= _NAME_CHARACTERS else None
    if found is None or not (found["tag"] or found["digest"]):
        return None
    host, path = found["host"], found["path"]
    if host is not None and not ("." in host or ":" in host or host == "localhost" or host != host.lower()):
        # Docker's rule: the first part is a registry only if it cannot be a folder of Docker Hub.
        host, path = None, f"{host}/{path}"
    registry = host.lower() if host else DOCKER_HUB
    if registry in _HUB_NAMES:
        registry = DOCKER_HUB
        path = path if "/" in path else f"library/{path}"
    return ImageName(registry, path, found["tag"], found["digest"])
